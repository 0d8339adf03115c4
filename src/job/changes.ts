// Jobs in the order in which they changed last: what `jobsUpdated` reads. The conditions are those of `listJobs`.
import { and, gte, or, sql } from 'drizzle-orm';
import type { Actor } from '../actor.ts';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { type Job, jobConditions, type JobFilter } from './job.ts';
import { job } from './table.ts';

/**
 * Place among changes: a transaction, and within it a job. Below `start`, where a follower began, jobs that do not match
 * are passed over in silence; it is 0 for a place beyond it, where it says nothing any more.
 */
export type ChangePosition = readonly [changed: number, jobId: string, start: number];

export function changePosition(changed: number, jobId: string, start: number): ChangePosition {
  return [changed, jobId, start > changed ? start : 0];
}

export type ChangesReading = {
  /** Jobs that match, as they are now. */
  jobs: Job[];
  /** Jobs that do not match now. */
  removedIds: string[];
  /** Up to here the changes were read. */
  position: ChangePosition;
  /** There is more below the horizon. */
  more: boolean;
  /** There are changes that only a later horizon will let be read. */
  pending: boolean;
};

/**
 * Jobs whose last change is after a position, below `horizon`, which was read before, and up to `until` where one is given;
 * up to `limit`. Those that do not match are named only when they changed in the position's `start` or later: before, who
 * follows was never told of them.
 */
export async function readChangedJobs(
  db: Db,
  actor: Actor,
  page: { filter: JobFilter; after: ChangePosition; until: ChangePosition | null; horizon: number; limit: number },
): Promise<ChangesReading> {
  const { filter, until, horizon, limit } = page;
  const [changed, jobId, start] = page.after;
  const conditions = jobConditions(actor, filter);
  const matches = sql<boolean>`(${and(sql`true`, ...conditions.now)})`;
  const order = keyset([job.changed, job.id], { descending: false, backward: false, limit, after: [changed, jobId] });
  const rows = await db
    .select({ job, matches })
    .from(job)
    .where(and(...conditions.always, ...order.where, or(matches, gte(job.changed, String(start)))))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  const readable = rows.filter((row) => Number(row.job.changed) < horizon);
  const within = until === null ? readable : readable.filter((row) => !isBeyond(row.job, until));
  const kept = within.slice(0, limit);
  const last = kept.at(-1)?.job;
  const end = last ? changePosition(Number(last.changed), last.id, start) : page.after;
  // What was read to its end from before the start is read up to the start: what is silent below it stays so.
  const whole = until ?? (end[2] > 0 ? changePosition(horizon, '', 0) : end);
  return {
    jobs: kept.filter((row) => row.matches).map((row) => row.job),
    removedIds: kept.filter((row) => !row.matches).map((row) => row.job.id),
    position: within.length > limit ? end : whole,
    more: readable.length > kept.length,
    pending: readable.length < rows.length,
  };
}

function isBeyond(row: Job, [changed, jobId]: ChangePosition): boolean {
  const of = Number(row.changed);
  return of > changed || (of === changed && row.id > jobId);
}
