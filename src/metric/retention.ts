// How long points and windows are kept after the end of their job: points and windows shorter than
// five minutes for `metricRawDays`, windows shorter than an hour for `metricWindowDays`, longer
// ones for good. The coarsest windows of a job always stay.
import { and, eq, gte, lt, type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import type { Pruned } from '../job/ended.ts';
import type { Job } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import { windowSecondsOf } from './metric.ts';
import { metricChunk, metricTier, metricWindow } from './table.ts';
import { fiveMinutes, hour, isRolledUp, lengthsOf } from './tier.ts';

/** Both in days after a job's end. */
export type Retention = { metricRawDays: number; metricWindowDays: number };

const dayMs = 86_400_000;

/** Whether the job ended more than `days` days before `now` (milliseconds since the Unix epoch). */
function isPast({ finishedAt }: Pick<Job, 'finishedAt'>, days: number, now: number): boolean {
  return finishedAt !== null && finishedAt.getTime() <= now - days * dayMs;
}

/**
 * Returns the lengths, in seconds, of the windows that can be read of a job, finest first. A length
 * that is past its retention is left out: some of its windows may be removed already.
 */
export async function readableLengths(db: Db, job: Job, retention: Retention, now = Date.now()): Promise<number[]> {
  const base = windowSecondsOf({ job });
  const lengths = lengthsOf(base);
  if (job.finishedAt === null) return lengths;
  const daysOf = (seconds: number) =>
    seconds < fiveMinutes ? retention.metricRawDays : seconds < hour ? retention.metricWindowDays : Infinity;
  const lengthsInTime = lengths.filter(
    (seconds, index) => index === lengths.length - 1 || !isPast(job, daysOf(seconds), now),
  );
  // Windows that were removed do not come back when a longer retention is configured: a length
  // counts from the finest that still has rows.
  for (const seconds of lengthsInTime.slice(0, -1)) {
    if (await holdsWindows(db, job.id, seconds, base)) return lengthsInTime.slice(lengthsInTime.indexOf(seconds));
  }
  return lengthsInTime.slice(-1);
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

/** Whether the points of a job are still stored and not past their retention. */
export async function holdsPoints(db: Db, job: Job, retention: Retention, now = Date.now()): Promise<boolean> {
  if (isPast(job, retention.metricRawDays, now)) return false;
  const [row] = await db
    .select({ first: metricChunk.first })
    .from(metricChunk)
    .where(eq(metricChunk.jobId, job.id))
    .limit(1);
  return row !== undefined;
}

/**
 * SQL condition: windows of this length fill an hour evenly, so that a tier holds them merged.
 * Others are the job's coarsest and are never removed.
 */
const hasTier = sql`${hour} % ${metricWindow.seconds} = 0`;

/**
 * Removes points, and windows shorter than five minutes, of ended jobs: up to `limit` rows of each.
 * The caller has locked the jobs. Returns LATER when the tiers do not hold all windows yet, MORE
 * when rows may remain.
 */
export async function prunePoints(tx: Tx, jobIds: readonly string[], limit: number): Promise<Pruned> {
  const chunks = await removeSome(tx, metricChunk, isOneOf(metricChunk.jobId, jobIds), limit);
  if (!chunks) return 'MORE';
  if (!(await isRolledUp(tx, jobIds))) return 'LATER';
  const isShort = and(isOneOf(metricWindow.jobId, jobIds), lt(metricWindow.seconds, fiveMinutes), hasTier);
  return (await removeSome(tx, metricWindow, isShort, limit)) ? 'ALL' : 'MORE';
}

/** Like `prunePoints`, for windows of at least five minutes and less than an hour. */
export async function pruneWindows(tx: Tx, jobIds: readonly string[], limit: number): Promise<Pruned> {
  if (!(await isRolledUp(tx, jobIds))) return 'LATER';
  const middle = (table: typeof metricTier | typeof metricWindow) =>
    and(isOneOf(table.jobId, jobIds), gte(table.seconds, fiveMinutes), lt(table.seconds, hour));
  const tiers = await removeSome(tx, metricTier, middle(metricTier), limit);
  const own = await removeSome(tx, metricWindow, and(middle(metricWindow), hasTier), limit);
  return tiers && own ? 'ALL' : 'MORE';
}

/** Removes up to `limit` rows that match. Returns true when no more rows match. */
async function removeSome(
  tx: Tx,
  table: typeof metricChunk | typeof metricWindow | typeof metricTier,
  which: SQL | undefined,
  limit: number,
): Promise<boolean> {
  const rows = tx
    .select({ place: sql`ctid` })
    .from(table)
    .where(which)
    .limit(limit);
  const removed = await tx
    .delete(table)
    .where(sql`ctid in ${rows}`)
    .returning({ jobId: table.jobId });
  return removed.length < limit;
}
