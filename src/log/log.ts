// The log of a job: lines with dense numbers, given under the job's lock (append.ts), and read from
// any number on (read.ts). A reader gets a gap with its reason for missing lines, never a silent
// jump.
import { asc, eq, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import type { Pruned } from '../job/ended.ts';
import type { Tx } from '../live/commit.ts';
import { logChunk } from './table.ts';

export const logStreams = ['STDOUT', 'STDERR', 'SYSTEM'] as const;
export type LogStream = (typeof logStreams)[number];
export type GapReason = 'RETENTION' | 'SPOOL_OVERFLOW' | 'LOG_LIMIT' | 'REFUSED' | 'RESTORED';

export type LogLine = {
  seq: number;
  /** Time at which the runner read the line, in milliseconds since the Unix epoch. */
  time: number;
  stream: LogStream;
  text: string;
  attempt: number;
  truncated: boolean;
};
export type StreamGap = { fromSeq: number; toSeq: number; reason: GapReason };

export type NewLine = { time: number; stream: LogStream; text: string; truncated?: boolean };
export type NewGap = { time: number; lines: number; reason: GapReason };

export type Entry =
  | [time: number, stream: number, text: string, truncated?: 1]
  | [time: number, lines: number, reason: GapReason, gap: 'gap'];

/** Returns the number of the first line in the database; null for an empty log. */
export async function firstKept(db: Db, jobId: string): Promise<number | null> {
  const [row] = await db
    .select({ first: logChunk.first })
    .from(logChunk)
    .where(eq(logChunk.jobId, jobId))
    .orderBy(asc(logChunk.first))
    .limit(1);
  return row?.first ?? null;
}

/**
 * Removes up to `limit` chunks of these logs, the first lines first. The caller has locked the
 * jobs.
 */
export async function pruneLogs(tx: Tx, jobIds: readonly string[], limit: number): Promise<Pruned> {
  const oldest = tx
    .select({ jobId: logChunk.jobId, first: logChunk.first })
    .from(logChunk)
    .where(isOneOf(logChunk.jobId, jobIds))
    .orderBy(asc(logChunk.jobId), asc(logChunk.first))
    .limit(limit);
  const removed = await tx
    .delete(logChunk)
    .where(sql`(${logChunk.jobId}, ${logChunk.first}) in ${oldest}`)
    .returning({ first: logChunk.first });
  return removed.length < limit ? 'ALL' : 'MORE';
}
