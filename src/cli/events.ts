// `astraml events`: the newest events, up to a number of them or back to a time.
import type { Command } from 'commander';
import { closest } from '../closest.ts';
import type { Cli } from './cli.ts';
import type { AddCommand } from './command.ts';
import { exitCodes, Failure, usage } from './failure.ts';
import { leafFields, select } from './fields.ts';
import { collect, headerFlag, toCount } from './flags.ts';
import { findJob } from './jobs/find.ts';
import { cell } from './output.ts';
import { parseDuration } from './text.ts';

const eventFields = {
  ...leafFields('id type time'),
  actor: '{ id name }',
  job: '{ id number }',
  ...leafFields('message data'),
};

type EventsOptions = {
  since?: string;
  type?: string[];
  limit?: string;
  all?: boolean;
  platform?: boolean;
  header?: boolean;
};

type Event = {
  id: string;
  type: string;
  time: string;
  actor: { id: string; name: string } | null;
  job: { id: string; number: number } | null;
  message: string;
  data: object | null;
};
type EventPage = { nodes: Event[]; pageInfo: { hasPreviousPage: boolean; startCursor: string | null } };
type ReadPage = (page: { last: number; before: string | null; types: string[] | undefined }) => Promise<EventPage>;

const jobTypes = 'SUBMITTED STATE_CHANGED ATTEMPT_STARTED ATTEMPT_FINISHED CHECKPOINT ALERT EDITED'.split(' ');
const otherTypes =
  'PROJECT_CREATED PROJECT_UPDATED TOKEN_CREATED TOKEN_REVOKED POLICY_SET SCHEDULE_CREATED SCHEDULE_UPDATED SCHEDULE_DELETED SECRET_SET SECRET_DELETED DEFAULTS_PUBLISHED DEFAULTS_CHOSEN'.split(
    ' ',
  );
const pageSize = 100;
const defaultLimit = '50';

export function addEventsCommand(program: Command, add: AddCommand): void {
  const about = 'who did what: to a job, a project or the platform, oldest first';
  add(program, 'events', about, eventFields, () => runEvents)
    .argument('[job]', 'number (42, p-demo/42), id (job_…) or @last (default: the whole project)')
    .option('--since <when>', 'only since, e.g. 24h, 2026-11-23 or 2026-11-23T12:00:00Z')
    .option('--type <type>', 'only of this type, e.g. token-created (repeat)', collect)
    .option('-n, --limit <count>', 'how many of the newest (default: 50; with --since: all)')
    .option('-a, --all', 'all of them')
    .option('--platform', 'those of the whole platform instead: tokens for all projects, defaults')
    .option(...headerFlag);
}

async function runEvents(cli: Cli, options: EventsOptions, [name]: string[]): Promise<number> {
  if (options.platform && name !== undefined) throw usage('events: name a job, or say --platform, not both.');
  const since = options.since === undefined ? -Infinity : toTime(options.since);
  const everything = options.all || (options.since !== undefined && options.limit === undefined);
  const limit = everything ? Infinity : toCount('-n', options.limit ?? defaultLimit);
  const typeNames = name === undefined ? [...jobTypes, ...otherTypes] : jobTypes;
  const types = options.type?.flatMap((text) => text.split(',').map((type) => toType(type.trim(), typeNames)));
  const events = await readNewest(readerOf(cli, options, name), { since, limit, types });
  if (cli.out.json) await cli.out.printJson(events);
  else if (events.length === 0) cli.out.note('No event.');
  else await cli.out.table(['TIME', 'WHO', 'TYPE', 'JOB', 'WHAT'], events.map(toRow), { header: options.header });
  return exitCodes.done;
}

function toRow({ time, actor, type, job, message }: Event): string[] {
  return [time, cell(actor?.name ?? 'system'), type, job ? String(job.number) : '', cell(message)];
}

/** Reads the newest events page by page towards the past, and returns them oldest first. */
async function readNewest(
  read: ReadPage,
  { since, limit, types }: { since: number; limit: number; types: string[] | undefined },
): Promise<Event[]> {
  const events: Event[] = [];
  let before: string | null = null;
  while (events.length < limit) {
    const page = await read({ last: Math.min(pageSize, limit - events.length), before, types });
    const recent = page.nodes.filter(({ time }) => Date.parse(time) >= since);
    events.unshift(...recent);
    if (!page.pageInfo.hasPreviousPage || recent.length < page.nodes.length) break;
    before = page.pageInfo.startCursor;
  }
  return events;
}

function readerOf(cli: Cli, { platform }: EventsOptions, name: string | undefined): ReadPage {
  const enumName = name === undefined ? 'ProjectEventType' : 'JobEventType';
  const head = `$last: Int!, $before: String, $types: [${enumName}!]`;
  const list = `(last: $last, before: $before, types: $types) { nodes ${select(eventFields)} pageInfo { hasPreviousPage startCursor } }`;
  if (platform) {
    return async (page) => {
      type Answer = { viewer: { platformEvents: EventPage | null } };
      const { viewer } = await cli.request<Answer>(`query(${head}) { viewer { platformEvents${list} } }`, page);
      if (viewer.platformEvents) return viewer.platformEvents;
      throw new Failure(exitCodes.notAllowed, 'Events of the platform are shown to its administrators only.');
    };
  }
  if (name !== undefined) {
    let jobId: Promise<{ id: string }> | undefined;
    return async (page) => {
      const { id } = await (jobId ??= findJob<{ id: string }>(cli, name, '{ id }'));
      const query = `query($id: ID!, ${head}) { job(id: $id) { events${list} } }`;
      const { job } = await cli.request<{ job: { events: EventPage } | null }>(query, { id, ...page });
      if (job) return job.events;
      throw new Failure(exitCodes.notFound, 'The job is gone, or you may not see it any more.');
    };
  }
  const id = cli.requireProject();
  return async (page) => {
    const query = `query($id: ID!, ${head}) { project(id: $id) { events${list} } }`;
    const { project } = await cli.request<{ project: { events: EventPage } | null }>(query, { id, ...page });
    if (project) return project.events;
    throw new Failure(exitCodes.notFound, `Project ${id} does not exist, or you may not see it.`);
  };
}

function toType(text: string, typeNames: readonly string[]): string {
  const type = text.toUpperCase().replaceAll('-', '_');
  if (typeNames.includes(type)) return type;
  const shown = (name: string) => name.toLowerCase().replaceAll('_', '-');
  const near = closest(type, typeNames);
  const hint = near ? `Did you mean "${shown(near)}"?` : `Known: ${typeNames.map(shown).join(', ')}.`;
  throw usage(`--type: "${text}" is no type of such an event.`, hint);
}

/**
 * Returns milliseconds since the Unix epoch, of a timestamp or of a duration before now, e.g. `2h`.
 */
function toTime(text: string): number {
  const seconds = parseDuration(text);
  if (seconds !== null) return Date.now() - seconds * 1000;
  const time = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : NaN;
  if (!Number.isNaN(time)) return time;
  throw usage(
    `--since takes a time or how long ago, got "${text}".`,
    'For example 30m, 24h, 7d or 2026-11-23T12:00:00Z.',
  );
}
