// `jobsUpdated`: the jobs that match a filter, live. A message tells how jobs are now, never what happened in between, so
// a job that changes a hundred times a second costs ten messages.
import { type Actor, requireActor, requirePlatformScope, requireScope } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import { notFound } from '../errors.ts';
import { asOfNow, builder, type Context } from '../graphql/builder.ts';
import { badInput } from '../graphql/node.ts';
import { horizonPause, readHorizon } from '../live/changes.ts';
import { cursorInvalid, decodeCursor, encodeCursor, isCount } from '../live/cursor.ts';
import type { Reading } from '../live/feed.ts';
import { loadProjects } from '../project/project.ts';
import { hashOf } from '../replay/replay.ts';
import { type ChangePosition, readChangedJobs } from './changes.ts';
import { type Job, type JobFilter, listJobs } from './job.ts';
import { JobFilterInput, JobRef, requireUsable } from './schema.ts';

const maxJobs = 100;
/** A job is sent at most so often. */
const minIntervalMs = 100;

type JobsUpdate = { jobs: Job[]; removedIds: string[]; endCursor: string; caughtUp: boolean; done: boolean };

const JobsUpdateRef = builder.objectRef<JobsUpdate>('JobsUpdate').implement({
  description: 'Jobs after a change.',
  fields: (t) => ({
    jobs: t.expose('jobs', {
      type: [JobRef],
      description: 'Jobs that match, as they are now. Their ids let normalised caches update every view of them.',
    }),
    removedIds: t.exposeIDList('removedIds', {
      description: 'Ids of jobs that changed and do not match now. Ignore ids you do not know.',
    }),
    endCursor: t.exposeString('endCursor', {
      description: 'Cursor after the change: the `after` to reconnect with.',
    }),
    caughtUp: t.exposeBoolean('caughtUp', {
      description: 'Indicates the jobs that matched at the start are delivered and what follows is live.',
    }),
    done: t.exposeBoolean('done', { description: 'Never true: the set of jobs has no end.' }),
  }),
});

builder.subscriptionField('jobsUpdated', (t) =>
  t.field({
    type: JobsUpdateRef,
    description:
      'Jobs that match: those that do now, then every change, at most ten a second and job. Jobs that stop matching are named.',
    args: {
      filter: t.arg({ type: JobFilterInput, description: 'Only jobs that match.' }),
      after: t.arg.string({ description: 'Cursor to resume after.' }),
      last: t.arg.int({ description: 'Without `after`: this many of the newest jobs first, 0–100.' }),
    },
    async subscribe(_, args, context) {
      const actor = requireActor(context.actor);
      const [filter, after, last] = [args.filter ?? {}, args.after ?? null, args.last ?? null];
      requireUsable(filter);
      if (after !== null && last !== null) throw badInput('Pass after or last, not both.', ['last']);
      if (last !== null && (last < 0 || last > maxJobs)) {
        throw badInput(`last is ${last}; it goes from 0 to ${maxJobs}.`, ['last']);
      }
      await requireProjects(context, actor, filter);
      const place = after === null ? null : fromCursor(filter, after, await readHorizon(context.database.db));
      const read = changesReader(context, actor, { filter, place, last });
      return context.feeds.follow<JobsUpdate>({ channel: channelOf(actor, filter), read, minIntervalMs });
    },
    resolve: asOfNow,
  }),
);

/** A list of what one may not see is empty, but a stream of it would wait for ever: it is refused. */
async function requireProjects(context: Context, actor: Actor, filter: JobFilter): Promise<void> {
  const ids = filter.projectIds ?? [];
  if (ids.length === 0 && actor.projectId === null) requirePlatformScope(actor, 'READ');
  const path = ['filter', 'projectIds'];
  for (const id of ids) requireScope(actor, id, 'READ', path);
  const known = ids.length > 0 ? await loadProjects(context.database.db, ids) : new Map<string, unknown>();
  for (const id of ids) if (!known.has(id)) throw notFound('Project', id, path);
}

function channelOf(actor: Actor, { projectIds }: JobFilter): string {
  const only = actor.projectId ?? (projectIds?.length === 1 ? projectIds[0] : undefined);
  return only === undefined ? channels.projects : channels.project(only);
}

/** Where a follower is. Below `start`, where it began, jobs that do not match are passed over in silence. */
type Place = { position: ChangePosition; start: number };

/** With another filter the same place would mean another set of jobs, some of them never told. */
function streamOf(filter: JobFilter): string {
  const given = Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== null && value !== undefined));
  return `jobs-updated:${hashOf(JSON.parse(JSON.stringify(given))).slice(0, 16)}`;
}

/** Throws CURSOR_INVALID also for a place beyond the horizon: it is of another database, and nothing would ever come. */
function fromCursor(filter: JobFilter, cursor: string, horizon: number): Place {
  const [changed, jobId, start, ...rest] = decodeCursor(streamOf(filter), cursor);
  if (!isCount(changed) || typeof jobId !== 'string' || !isCount(start) || rest.length > 0) throw cursorInvalid();
  if (changed > horizon || start > horizon) throw cursorInvalid();
  return { position: [changed, jobId], start };
}

/**
 * Reads in rounds. A round ends at the horizon of its beginning, and within it no job comes twice, so its pages need no
 * pause; between two rounds the feed keeps the least interval.
 */
function changesReader(
  { database }: Context,
  actor: Actor,
  { filter, place, last }: { filter: JobFilter; place: Place | null; last: number | null },
): (first: boolean) => Promise<Reading<JobsUpdate>> {
  const { db } = database;
  const stream = streamOf(filter);
  const pause = horizonPause();
  let at = place;
  let until = 0;
  let caughtUp = false;
  const update = ({ position, start }: Place, jobs: Job[], removedIds: string[]): JobsUpdate => {
    return { jobs, removedIds, endCursor: encodeCursor(stream, [...position, start]), caughtUp, done: false };
  };
  return async (first) => {
    const horizon = await readHorizon(db);
    const seen = { changed: horizon - 1 };
    if (at === null && last !== null) {
      const order = { field: 'CREATED_AT', descending: true, backward: false } as const;
      const newest = (await listJobs(db, actor, { filter, ...order, limit: last })).slice(0, last);
      at = { position: [horizon, ''], start: horizon };
      caughtUp = true;
      return { value: update(at, newest, []), seen, more: false, done: false };
    }
    const { position: after, start } = at ?? { position: [0, ''], start: horizon };
    if (after[0] >= until) until = horizon;
    const reading = await readChangedJobs(db, actor, { filter, after, until, start, limit: maxJobs });
    const { jobs, removedIds, position, more, pending } = reading;
    at = { position, start };
    const news = first || jobs.length + removedIds.length > 0 || caughtUp !== !more;
    caughtUp = !more;
    const value = news ? update(at, jobs, removedIds) : null;
    return { value, seen, more, done: false, againMs: pause(pending) };
  };
}
