// Jobs for background loops: ended jobs in the order of their end, and locks on jobs.
import { and, asc, isNotNull, lt, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import type { Tx } from '../live/commit.ts';
import { job, jobStream } from './table.ts';

/** Position of a job in the order of ends. */
export type EndedJob = { id: string; finishedAt: Date };

/**
 * Result of one step of retention: ALL rows of these jobs are removed, there are MORE, or it is
 * tried LATER.
 */
export type Pruned = 'ALL' | 'MORE' | 'LATER';

/**
 * Returns up to `limit` jobs that ended before `before`, the earliest first, after the position
 * `after`.
 */
export async function listEnded(db: Db, before: Date, after: EndedJob | null, limit: number): Promise<EndedJob[]> {
  const behind = after
    ? sql`(${job.finishedAt}, ${job.id}) > (${after.finishedAt.toISOString()}::timestamptz, ${after.id})`
    : undefined;
  const rows = await db
    .select({ id: job.id, finishedAt: job.finishedAt })
    .from(job)
    .where(and(isNotNull(job.finishedAt), lt(job.finishedAt, before), behind))
    .orderBy(asc(job.finishedAt), asc(job.id))
    .limit(limit);
  return rows.flatMap(({ id, finishedAt }) => (finishedAt ? [{ id, finishedAt }] : []));
}

/** Locks jobs in the order of their ids, as every transaction does, so that no two deadlock. */
export async function lockJobs(tx: Tx, ids: readonly string[]): Promise<void> {
  await tx
    .select({ jobId: jobStream.jobId })
    .from(jobStream)
    .where(isOneOf(jobStream.jobId, ids))
    .orderBy(asc(jobStream.jobId))
    .for('update');
}

/**
 * Locks one job that no other transaction has locked, and returns its id; null when all are locked.
 */
export async function lockFree(tx: Tx, ids: readonly string[]): Promise<string | null> {
  if (ids.length === 0) return null;
  const [free] = await tx
    .select({ jobId: jobStream.jobId })
    .from(jobStream)
    .where(isOneOf(jobStream.jobId, ids))
    .orderBy(asc(jobStream.jobId))
    .limit(1)
    .for('update', { skipLocked: true });
  return free?.jobId ?? null;
}
