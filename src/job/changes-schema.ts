// `jobsUpdated`: the jobs that match a filter, live. A message holds jobs as they are now, not each
// change in between: a job that changes 100 times a second costs 10 messages.
import { type Actor, requirePlatformScope, requireScope } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import type { Db } from '../database/database.ts';
import { notFound, Refusal } from '../errors.ts';
import { builder, type Context } from '../graphql/builder.ts';
import { type Batch, batchType, streamField } from '../graphql/stream.ts';
import { decodePosition, positionFromText, positionToText, readHorizon } from '../live/changes.ts';
import { cursorInvalid, encodeCursor } from '../live/cursor.ts';
import type { SharedStream, StreamSlice } from '../live/feed.ts';
import { loadProjects } from '../project/project.ts';
import { hashOf } from '../replay/replay.ts';
import { bytesOfJobs, firstSlice, listJobsInSlices, maxPageBytes, nextSlice } from './bytes.ts';
import { changePosition, type ChangePosition, type ChangesReading, readChangedJobs } from './changes.ts';
import type { Job } from './job.ts';
import { JobFilterInput, requireUsable } from './list-schema.ts';
import type { JobFilter } from './list.ts';
import { JobRef } from './schema.ts';

const maxJobs = 100;
/** Shortest pause between two messages of a subscription: at most ten a second. */
const minIntervalMs = 100;

type JobsUpdate = Batch<{ jobs: Job[]; removedIds: string[] }>;

const JobsUpdateRef = batchType<JobsUpdate>('JobsUpdate', {
  description: 'Jobs after a change.',
  fields: (t) => ({
    jobs: t.expose('jobs', {
      type: [JobRef],
      description: 'Jobs that match, as they are now. Their ids let normalised caches update every view of them.',
    }),
    removedIds: t.exposeIDList('removedIds', {
      description: 'Ids of jobs that changed and do not match now. Ignore ids you do not know.',
    }),
  }),
  endCursor: 'Cursor after the change: the `after` to reconnect with.',
  caughtUp: 'Indicates the jobs that matched at the start are delivered and what follows is live.',
  done: 'Never true: the set of jobs has no end.',
});

streamField('jobsUpdated', {
  description:
    'Jobs that match: those that do now, then every change, at most ten a second and job. Jobs that stop matching are named.',
  batch: JobsUpdateRef,
  args: builder.args((t) => ({ filter: t.field({ type: JobFilterInput, description: 'Only jobs that match.' }) })),
  after: 'Cursor to resume after.',
  last: { max: maxJobs, description: 'Without `after`: this many of the newest jobs first, 0–100.' },
  async follow({ filter, after, last }, context, actor) {
    const jobFilter: JobFilter = filter ?? {};
    requireUsable(jobFilter);
    await requireProjects(context, actor, jobFilter);
    const horizon = await context.feeds.readFirst('horizon', () => readHorizon(context.database.db));
    const start = after === null ? changePosition(0, '', horizon) : fromCursor(jobFilter, after, horizon);
    const shared = changesStream(context, actor, { filter: jobFilter, start, last });
    return { channel: channelOf(actor, jobFilter), shared, minIntervalMs };
  },
});

/**
 * Throws NOT_FOUND or PERMISSION_DENIED for projects that the caller may not see. A list of their
 * jobs would be empty, but a stream of them would stay silent for ever.
 */
async function requireProjects(context: Context, actor: Actor, filter: JobFilter): Promise<void> {
  const ids = filter.projectIds ?? [];
  if (ids.length === 0 && actor.projectId === null) requirePlatformScope(actor, 'READ');
  const path = ['filter', 'projectIds'];
  for (const id of ids) requireScope(actor, id, 'READ', path);
  const projects = ids.length > 0 ? await loadProjects(context.database.db, ids) : new Map<string, unknown>();
  for (const id of ids) if (!projects.has(id)) throw notFound('Project', id, path);
}

function channelOf(actor: Actor, { projectIds }: JobFilter): string {
  const only = actor.projectId ?? (projectIds?.length === 1 ? projectIds[0] : undefined);
  return only === undefined ? channels.projects : channels.project(only);
}

/**
 * Returns the name of the stream for its cursors. It depends on the filter: a position of another
 * filter would skip jobs.
 */
function streamName(filter: JobFilter): string {
  const present = Object.fromEntries(
    Object.entries(filter).filter(([, value]) => value !== null && value !== undefined),
  );
  return `jobs-updated:${hashOf(JSON.parse(JSON.stringify(present))).slice(0, 16)}`;
}

function fromCursor(filter: JobFilter, cursor: string, horizon: number): ChangePosition {
  const [changed, jobId, start] = decodePosition(streamName(filter), cursor, horizon);
  if (start > horizon) throw cursorInvalid();
  return changePosition(changed, jobId, start);
}

/**
 * Makes the stream for followers with this filter. Without a ring, a slow follower reads jobs in
 * their present state from the database. A read depends on the token's project, and on the token
 * when the filter has `submittedByMe`.
 */
function changesStream(
  { database: { db } }: Context,
  actor: Actor,
  { filter, start, last }: { filter: JobFilter; start: ChangePosition; last: number | null },
): SharedStream<JobsUpdate, string> {
  const stream = streamName(filter);
  return {
    // `start[2]` belongs to the key: followers that subscribed at different times get different
    // removed jobs.
    key: [stream, actor.projectId, filter.submittedByMe ? actor.tokenId : '', start[0] > 0 ? start[2] : 0].join(' '),
    start: positionToText(start),
    ringBytes: 0,
    open:
      last === null
        ? undefined
        : {
            key: `last ${last}`,
            async read() {
              const horizon = await readHorizon(db);
              const order = { field: 'CREATED_AT', descending: true, backward: false } as const;
              const newest = await listJobsInSlices(db, actor, { filter, ...order, limit: last });
              const jobs = newest.jobs.slice(0, last);
              if (newest.isCut && jobs.length < last) throw tooLarge(last, jobs.length);
              const position = changePosition(horizon, '', 0);
              return toSlice(stream, horizon, { jobs, removedIds: [], position, more: false, pending: false });
            },
          },
    async read(from, to) {
      const horizon = await readHorizon(db);
      const [after, until] = [positionFromText(from), to === null ? null : positionFromText(to)];
      return toSlice(stream, horizon, await readSlices(db, actor, { filter, after, until, horizon }));
    },
  };
}

/**
 * Reads changes in slices until a batch is full: 100 jobs or removed ids, or `maxPageBytes` of
 * jobs.
 */
async function readSlices(
  db: Db,
  actor: Actor,
  page: { filter: JobFilter; after: ChangePosition; until: ChangePosition | null; horizon: number },
): Promise<ChangesReading> {
  let reading = await readChangedJobs(db, actor, { ...page, limit: firstSlice });
  for (;;) {
    const { jobs, removedIds, position } = reading;
    const room = maxJobs - jobs.length - removedIds.length;
    const isAtEnd = !reading.more || (page.until !== null && position === page.until);
    if (isAtEnd || room <= 0 || bytesOfJobs(jobs) >= maxPageBytes) return reading;
    const limit = jobs.length > 0 ? nextSlice(jobs, room) : room;
    const next = await readChangedJobs(db, actor, { ...page, after: position, limit });
    reading = { ...next, jobs: [...jobs, ...next.jobs], removedIds: [...removedIds, ...next.removedIds] };
  }
}

function tooLarge(last: number, fitting: number): Refusal {
  const message = `last: ${last} asks for jobs that are too large for one message; ${fitting} of them fit.`;
  return new Refusal('OPERATION_TOO_LARGE', message, { path: ['last'], hint: 'Pass a smaller last.' });
}

function toSlice(
  stream: string,
  horizon: number,
  { jobs, removedIds, position, more, pending }: ChangesReading,
): StreamSlice<JobsUpdate, string> {
  return {
    value: { jobs, removedIds, endCursor: encodeCursor(stream, position), caughtUp: !more, done: false },
    empty: jobs.length + removedIds.length === 0,
    position: positionToText(position),
    seen: { changed: horizon - 1 },
    more,
    pending,
    done: false,
    sizeBytes: bytesOfJobs(jobs),
  };
}
