// How long what a job measured is kept, counted from its end: points and windows shorter than five minutes for one time,
// those shorter than an hour for another, the rest for good. The coarsest windows of a job always stay.
import { and, eq, gte, lt, type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import type { Pruned } from '../job/ended.ts';
import type { Job } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import { windowSecondsOf } from './metric.ts';
import { metricChunk, metricTier, metricWindow } from './table.ts';
import { fiveMinutes, hour, isRolledUp, lengthsOf } from './tier.ts';

/** Days after a job's end. */
export type Retention = { metricRawDays: number; metricWindowDays: number };

const dayMs = 86_400_000;

/** Whether something that is kept for so many days after the end of a job is past that. */
function isPast({ finishedAt }: Pick<Job, 'finishedAt'>, days: number, now: number): boolean {
  return finishedAt !== null && finishedAt.getTime() <= now - days * dayMs;
}

/** Lengths of windows that can be read of a job, finest first. What is past its time may be half gone, so it is not among them. */
export async function readableLengths(db: Db, job: Job, retention: Retention, now = Date.now()): Promise<number[]> {
  const base = windowSecondsOf({ job });
  const lengths = lengthsOf(base);
  if (job.finishedAt === null) return lengths;
  const daysOf = (seconds: number) =>
    seconds < fiveMinutes ? retention.metricRawDays : seconds < hour ? retention.metricWindowDays : Infinity;
  const kept = lengths.filter((seconds, index) => index === lengths.length - 1 || !isPast(job, daysOf(seconds), now));
  // A longer time that is configured later brings nothing back.
  for (const seconds of kept.slice(0, -1)) {
    if (await holdsWindows(db, job.id, seconds, base)) return kept.slice(kept.indexOf(seconds));
  }
  return kept.slice(-1);
}

async function holdsWindows(db: Db, jobId: string, seconds: number, base: number): Promise<boolean> {
  const table = seconds === base ? metricWindow : metricTier;
  const [row] = await db
    .select({ start: table.start })
    .from(table)
    .where(and(eq(table.jobId, jobId), eq(table.seconds, seconds)))
    .limit(1);
  return row !== undefined;
}

/** Whether the points of a job can be read. */
export async function holdsPoints(db: Db, job: Job, retention: Retention, now = Date.now()): Promise<boolean> {
  if (isPast(job, retention.metricRawDays, now)) return false;
  const [row] = await db
    .select({ first: metricChunk.first })
    .from(metricChunk)
    .where(eq(metricChunk.jobId, job.id))
    .limit(1);
  return row !== undefined;
}

/** The job's own windows of a length for which there is a tier. */
const hasTier = sql`${hour} % ${metricWindow.seconds} = 0`;

/**
 * Removes points and windows shorter than five minutes of ended jobs, up to `limit` rows of each. The caller has locked
 * the jobs. Windows wait until the tiers hold them.
 */
export async function prunePoints(tx: Tx, jobIds: readonly string[], limit: number): Promise<Pruned> {
  const chunks = await removeSome(tx, metricChunk, isOneOf(metricChunk.jobId, jobIds), limit);
  if (!chunks) return 'MORE';
  if (!(await isRolledUp(tx, jobIds))) return 'LATER';
  const own = and(isOneOf(metricWindow.jobId, jobIds), lt(metricWindow.seconds, fiveMinutes), hasTier);
  return (await removeSome(tx, metricWindow, own, limit)) ? 'ALL' : 'MORE';
}

/** Likewise windows of five minutes and more, but shorter than an hour. */
export async function pruneWindows(tx: Tx, jobIds: readonly string[], limit: number): Promise<Pruned> {
  if (!(await isRolledUp(tx, jobIds))) return 'LATER';
  const middle = (table: typeof metricTier | typeof metricWindow) =>
    and(isOneOf(table.jobId, jobIds), gte(table.seconds, fiveMinutes), lt(table.seconds, hour));
  const tiers = await removeSome(tx, metricTier, middle(metricTier), limit);
  const own = await removeSome(tx, metricWindow, and(middle(metricWindow), hasTier), limit);
  return tiers && own ? 'ALL' : 'MORE';
}

/** Removes up to `limit` rows; whether these were all. */
async function removeSome(
  tx: Tx,
  table: typeof metricChunk | typeof metricWindow | typeof metricTier,
  which: SQL | undefined,
  limit: number,
): Promise<boolean> {
  const some = tx
    .select({ at: sql`ctid` })
    .from(table)
    .where(which)
    .limit(limit);
  const removed = await tx
    .delete(table)
    .where(sql`ctid in ${some}`)
    .returning({ jobId: table.jobId });
  return removed.length < limit;
}
