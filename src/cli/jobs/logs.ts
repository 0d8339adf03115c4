// `astraml logs`: the last lines of a job or those after a cursor, and new ones with --follow.
import { closest } from '../../closest.ts';
import type { Cli } from '../cli.ts';
import { exitCodeOfState, exitCodes, Failure, usage } from '../failure.ts';
import { select } from '../fields.ts';
import { toCount } from '../flags.ts';
import { pick } from '../output.ts';
import { cleanLine } from '../text.ts';
import { type JobLine, jobLineFields, lineFields, type LogLine } from './fields.ts';
import { findJob } from './find.ts';
import {
  detachable,
  detachedMessage,
  type FollowedLine,
  followLog,
  followState,
  noteState,
  warnOfGap,
} from './follow.ts';
import { outcomeLines } from './outcome.ts';

type LogsOptions = {
  follow?: boolean;
  lines?: string;
  stream?: string[];
  attempt?: string;
  grep?: string;
  timestamps?: boolean;
  after?: string;
  exitStatus?: boolean;
};

type LogPage = {
  edges: { cursor: string; node: LogLine }[];
  gaps: { fromSeq: number; toSeq: number; reason: string }[];
  pageInfo: { hasNextPage: boolean; hasPreviousPage: boolean; startCursor: string | null; endCursor: string | null };
};
type Range = { after: string | null; last: number | null; filter: object };

const defaultLines = 200;
const mostLines = 10_000;
const pageSize = 1_000;
const streams = ['STDOUT', 'STDERR', 'SYSTEM'];

export async function runLogs(cli: Cli, options: LogsOptions, [name = '@last']: string[]): Promise<number> {
  const range = {
    after: options.after ?? null,
    last: lastOf(options),
    filter: {
      streams: options.stream?.map(toStream),
      attempt: options.attempt === undefined ? undefined : toCount('--attempt', options.attempt),
      search: options.grep,
    },
  };
  const job = await findJob<JobLine>(cli, name, select(jobLineFields));
  const ended = options.follow ? await follow(cli, job, range, options) : await readLines(cli, job, range, options);
  if (!options.exitStatus) return exitCodes.done;
  const code = exitCodeOfState[ended.state];
  if (code === undefined)
    throw new Failure(
      exitCodes.unexpected,
      `The job is ${ended.state}: it has no outcome yet.`,
      'Add -f to wait for it.',
    );
  return code;
}

/**
 * Returns the number of lines before the end; null with --after, which prints all lines after the
 * cursor.
 */
function lastOf({ lines, after }: LogsOptions): number | null {
  if (after !== undefined && lines !== undefined) throw usage('--lines and --after exclude each other.');
  if (after !== undefined) return null;
  return lines === undefined ? defaultLines : toCount('--lines', lines, { min: 0, max: mostLines });
}

async function readLines(cli: Cli, job: JobLine, range: Range, options: LogsOptions): Promise<JobLine> {
  const lines = range.after === null ? await readTail(cli, job, range) : await readOn(cli, job, range);
  if (cli.out.json) await cli.out.printJson(lines);
  else for (const line of lines) await printLine(cli, line, options);
  return job;
}

/** Reads the last lines page by page towards the past, and returns them in order. */
async function readTail(cli: Cli, job: JobLine, { last, filter }: Range): Promise<FollowedLine[]> {
  const lines: FollowedLine[] = [];
  let before: string | null = null;
  while (lines.length < (last ?? 0)) {
    const size = Math.min(pageSize, (last ?? 0) - lines.length);
    const page: LogPage = await readPage(cli, job, { before, last: size, filter });
    lines.unshift(...shown(page));
    if (!page.pageInfo.hasPreviousPage) break;
    before = page.pageInfo.startCursor;
  }
  return lines;
}

async function readOn(cli: Cli, job: JobLine, { after, filter }: Range): Promise<FollowedLine[]> {
  const lines: FollowedLine[] = [];
  for (let from = after; ;) {
    const page: LogPage = await readPage(cli, job, { after: from, first: pageSize, filter });
    lines.push(...shown(page));
    if (!page.pageInfo.hasNextPage) return lines;
    from = page.pageInfo.endCursor;
  }
}

async function readPage(cli: Cli, { id }: JobLine, page: object): Promise<LogPage> {
  const query = `query($id: ID!, $first: Int, $last: Int, $after: String, $before: String, $filter: LogFilter) {
    job(id: $id) { logs(first: $first, last: $last, after: $after, before: $before, filter: $filter) {
      edges { cursor node ${select(lineFields)} } gaps { fromSeq toSeq reason } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    } }
  }`;
  const { job } = await cli.request<{ job: { logs: LogPage } | null }>(query, { id, ...page });
  if (!job) throw new Failure(exitCodes.notFound, 'The job is gone, or you may not see it any more.');
  for (const gap of job.logs.gaps) warnOfGap(cli, gap);
  return job.logs;
}

function shown({ edges }: LogPage): FollowedLine[] {
  return edges.map(({ cursor, node }) => ({ cursor, ...node }));
}

/** Prints the last lines, each with its own cursor, then follows the log from the last of them. */
async function follow(cli: Cli, job: JobLine, range: Range, options: LogsOptions): Promise<JobLine> {
  const show = async (line: FollowedLine) => {
    if (cli.out.json) await cli.out.print(JSON.stringify(pick(line, cli.out.json)));
    else await printLine(cli, line, options);
  };
  const ended = await detachable(detachedMessage(cli, job), async (signal) => {
    const tail = range.after === null ? await readTail(cli, job, { ...range, last: range.last || 1 }) : [];
    if (range.last !== 0) for (const line of tail) await show(line);
    const after = tail.at(-1)?.cursor ?? range.after;
    const log = followLog(cli, job.id, { after, filter: range.filter }, signal, show);
    const state = followState(cli, job.id, signal, (now) => {
      if (!(now.state in exitCodeOfState)) noteState(cli, now);
    });
    return (await Promise.all([state, log]))[0];
  });
  if (!ended) return job;
  for (const line of outcomeLines(cli, ended)) cli.out.note(line);
  return ended;
}

async function printLine(cli: Cli, line: LogLine, { timestamps }: LogsOptions): Promise<void> {
  const { out } = cli;
  const text = cleanLine(line.text, out.colours);
  await out.print(timestamps ? `${out.paint('dim', line.time)} ${text}` : text);
}

function toStream(text: string): string {
  const stream = text.toUpperCase();
  if (streams.includes(stream)) return stream;
  const near = closest(stream, streams);
  throw usage(
    `--stream takes ${streams.join(', ').toLowerCase()}, got "${text}".`,
    near ? `Did you mean "${near.toLowerCase()}"?` : null,
  );
}
