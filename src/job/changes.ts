// Reads jobs in the order of their last changes, for the subscription `jobsUpdated`. Filters mean
// what they mean in `listJobs`.
import { and, gte, or, sql } from 'drizzle-orm';
import type { Actor } from '../actor.ts';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import type { Job } from './job.ts';
import { jobConditions, type JobFilter } from './list.ts';
import { job } from './table.ts';

/**
 * Position among changes: transaction number, then job id. `start` is the transaction at which the
 * follower subscribed. Jobs changed before it are never reported as removed, because the follower
 * did not see them. `start` becomes 0 once the position has passed it.
 */
export type ChangePosition = readonly [changed: number, jobId: string, start: number];

export function changePosition(changed: number, jobId: string, start: number): ChangePosition {
  return [changed, jobId, start > changed ? start : 0];
}

export type ChangesReading = {
  /** Jobs that match the filter, in their present state. */
  jobs: Job[];
  /** Ids of jobs that changed and do not match the filter any more. */
  removedIds: string[];
  /** Changes were read up to this position. */
  position: ChangePosition;
  /** True when more changes lie below the horizon. */
  more: boolean;
  /**
   * True when changes lie above the horizon: they can be read once older transactions have ended.
   */
  pending: boolean;
};

/**
 * Reads up to `limit` jobs whose last change lies after a position, below `horizon` and not beyond
 * `until`. The caller reads `horizon` before this call. A job that does not match is reported only
 * when it changed at `start` or later: the follower never saw the others.
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
  // All changes below the horizon were read. A position with a `start` moves up to the horizon,
  // which lies at or beyond `start`, so that `start` becomes 0.
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
  const rowChanged = Number(row.changed);
  return rowChanged > changed || (rowChanged === changed && row.id > jobId);
}
