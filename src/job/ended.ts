// Jobs for work in the background: those that ended, in the order of their end, and locks that wait for nobody.
import { and, asc, isNotNull, lt, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import type { Tx } from '../live/commit.ts';
import { job, jobStream } from './table.ts';

/** Place of a job in the order of ends. */
export type EndedJob = { id: string; finishedAt: Date };

/** What a step of retention came to: nothing of these jobs is left, there is more to remove, or it must wait. */
export type Pruned = 'ALL' | 'MORE' | 'LATER';

/** Jobs that ended before a moment, the earliest first, behind a place; `limit` at most. */
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

/** Locks jobs, in the order in which everybody does. */
export async function lockJobs(tx: Tx, ids: readonly string[]): Promise<void> {
  await tx
    .select({ jobId: jobStream.jobId })
    .from(jobStream)
    .where(isOneOf(jobStream.jobId, ids))
    .orderBy(asc(jobStream.jobId))
    .for('update');
}

/** Locks one of the jobs that nobody else has locked; null when there is none. */
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
