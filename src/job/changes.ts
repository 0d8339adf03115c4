// Jobs in the order in which they changed last: what `jobsUpdated` reads. The conditions are those of `listJobs`.
import { and, gte, or, sql } from 'drizzle-orm';
import type { Actor } from '../actor.ts';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { type Job, jobConditions, type JobFilter } from './job.ts';
import { job } from './table.ts';

/** Place among changes: a transaction, and within it a job. */
export type ChangePosition = readonly [changed: number, jobId: string];

export type ChangesReading = {
  /** Jobs that match, as they are now. */
  jobs: Job[];
  /** Jobs that do not match now. */
  removedIds: string[];
  /** Up to here the changes were read. */
  position: ChangePosition;
  /** There is more below `until`. */
  more: boolean;
  /** There are changes that only a later horizon will let be read. */
  pending: boolean;
};

/**
 * Jobs whose last change is after a position and below `until`, up to `limit`; no job twice below one `until`. Those that
 * do not match are named only when they changed in `start` or later: before, who follows was never told of them.
 */
export async function readChangedJobs(
  db: Db,
  actor: Actor,
  options: { filter: JobFilter; after: ChangePosition; until: number; start: number; limit: number },
): Promise<ChangesReading> {
  const { filter, after, until, start, limit } = options;
  const conditions = jobConditions(actor, filter);
  const matches = sql<boolean>`(${and(sql`true`, ...conditions.now)})`;
  const order = keyset([job.changed, job.id], { descending: false, backward: false, limit, after });
  const rows = await db
    .select({ job, matches })
    .from(job)
    .where(and(...conditions.always, ...order.where, or(matches, gte(job.changed, String(start)))))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  const readable = rows.filter((row) => Number(row.job.changed) < until);
  const more = readable.length > limit;
  const kept = readable.slice(0, limit);
  const last = kept.at(-1)?.job;
  return {
    jobs: kept.filter((row) => row.matches).map((row) => row.job),
    removedIds: kept.filter((row) => !row.matches).map((row) => row.job.id),
    position: more && last ? [Number(last.changed), last.id] : [until, ''],
    more,
    pending: readable.length < rows.length,
  };
}
