// Refuses records that cannot be stored. Each is kept whole in `refused_record`, shows as a gap of
// one line in its job's log, and raises an alert. An attempt whose start or end is refused, or that
// has too many such records, ends as FAILED.
import { and, count, eq, lt, sql } from 'drizzle-orm';
import type { Attempt } from '../attempt/attempt.ts';
import { refuseAttempt } from '../attempt/end.ts';
import { packBytes } from '../database/columns.ts';
import { databaseErrorCode, isPassing } from '../database/database.ts';
import { addEvent, type LockedJob } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import { appendLog } from '../log/append.ts';
import { closeAllWindows } from '../metric/append.ts';
import { linesCrcAfter, parseRecord } from '../protocol/record.ts';
import { refusedRecord } from './table.ts';

/** A record as its runner sent it, with its number in the attempt and the reason of the refusal. */
export type RefusedRecord = { number: number; record: unknown; reason: string };

export const maxRefusedOfJob = 10_000;
export const maxRefusedOfProject = 100_000;
/**
 * The project's limit is checked at every 100th refused record of a job: counting reads up to
 * 100,000 index entries.
 */
const projectCheckEvery = 100;
const maxReasonLength = 500;

/** Keeps one record of a locked job as refused. The caller moves the attempt's mark behind it. */
export async function refuseRecord(tx: Tx, locked: LockedJob, attempt: Attempt, refused: RefusedRecord): Promise<void> {
  const { number, record, reason } = refused;
  const parsed = parseRecord(record);
  // The runner counts the line in its checksum. Without it here, the check at the attempt's end
  // would raise a second alert about the same loss.
  if (parsed?.type === 'line' && parsed.stream !== 'SYSTEM') {
    attempt.lines++;
    attempt.linesCrc = linesCrcAfter(attempt.linesCrc, [parsed.text]);
  }
  const time = Math.max(attempt.createdAt.getTime(), Math.min(parsed?.time ?? Infinity, Date.now()));
  const gap = { time, lines: parsed?.type === 'gap' ? parsed.lines : 1, reason: 'REFUSED' } as const;
  const isShown = await inSavepoint(tx, locked, () => appendLog(tx, locked, attempt.number, [gap]));
  const before = await countRefused(tx, locked);
  if (before === null) {
    const limits = `${maxRefusedOfJob} of a job and ${maxRefusedOfProject} of a project are kept`;
    return endRefused(tx, locked, attempt, `Too many records of it could not be stored: ${limits}.`);
  }
  const { id: jobId, projectId } = locked.job;
  await tx.insert(refusedRecord).values({
    attemptId: attempt.id,
    number,
    jobId,
    projectId,
    attempt: attempt.number,
    seq: isShown ? locked.stream.line : null,
    record: packBytes(JSON.stringify(record)).packed,
    reason: reason.slice(0, maxReasonLength),
  });
  await alertOf(tx, locked, attempt, refused, before + 1);
  if (parsed?.type === 'started' || parsed?.type === 'finished') {
    const which = parsed.type === 'started' ? 'start' : 'end';
    await endRefused(tx, locked, attempt, `The record of its ${which} could not be stored: ${reason}`);
  }
}

/**
 * Counts the refused records that are kept of the job; null when the job or its project has reached
 * its limit.
 */
async function countRefused(tx: Tx, { job }: LockedJob): Promise<number | null> {
  const [jobCount] = await tx.select({ count: count() }).from(refusedRecord).where(eq(refusedRecord.jobId, job.id));
  const keptCount = jobCount?.count ?? 0;
  if (keptCount >= maxRefusedOfJob) return null;
  if (keptCount % projectCheckEvery !== 0) return keptCount;
  const rows = tx
    .select({ one: sql`1`.as('one') })
    .from(refusedRecord)
    .where(eq(refusedRecord.projectId, job.projectId))
    .limit(maxRefusedOfProject)
    .as('some');
  const [projectCount] = await tx.select({ count: count() }).from(rows);
  return (projectCount?.count ?? 0) >= maxRefusedOfProject ? null : keptCount;
}

/**
 * Writes an alert for the 1st, 2nd, 4th, 8th … refused record of a job: 10,000 records leave 14
 * alerts.
 */
async function alertOf(
  tx: Tx,
  locked: LockedJob,
  attempt: Attempt,
  { number, reason }: RefusedRecord,
  refused: number,
): Promise<void> {
  if ((refused & (refused - 1)) !== 0) return;
  const soFar = refused === 1 ? '' : ` It is the job's ${refused}th such record.`;
  await addEvent(tx, locked, {
    type: 'ALERT',
    message: `Record ${number} of attempt ${attempt.number} could not be stored and was set aside: ${reason}${soFar}`,
    data: { attempt: attempt.number, number, refused },
  });
}

async function endRefused(tx: Tx, locked: LockedJob, attempt: Attempt, message: string): Promise<void> {
  // Closing the windows may fail as the record did. They then stay open, and the attempt ends all
  // the same.
  await inSavepoint(tx, locked, () => closeAllWindows(tx, locked));
  await refuseAttempt(tx, locked, attempt, message);
}

/**
 * Runs `work` in a savepoint. Returns false when it fails: its writes are undone and the
 * transaction goes on. Rejects for a passing fault.
 */
async function inSavepoint(tx: Tx, locked: LockedJob, work: () => Promise<void>): Promise<boolean> {
  const before = { job: { ...locked.job }, stream: { ...locked.stream } };
  await tx.execute(sql`savepoint refused`);
  try {
    await work();
    await tx.execute(sql`release savepoint refused`);
    return true;
  } catch (error) {
    if (isPassing(error)) throw error;
    await tx.execute(sql`rollback to savepoint refused`);
    Object.assign(locked.job, before.job);
    Object.assign(locked.stream, before.stream);
    return false;
  }
}

/**
 * Describes a failure for the users of the job. It quotes no value: the message of a database error
 * may hold data of another job.
 */
export function reasonOf(error: unknown): string {
  const code = databaseErrorCode(error);
  if (code !== undefined) return `The database refused it (SQLSTATE ${code}).`;
  return `The gateway failed (${error instanceof Error ? error.name : 'unknown error'}).`;
}

/**
 * Removes up to `limit` records that were refused before a time. Returns whether more may be left.
 */
export async function pruneRefused(tx: Tx, before: Date, limit: number): Promise<boolean> {
  const rows = tx
    .select({ attemptId: refusedRecord.attemptId, number: refusedRecord.number })
    .from(refusedRecord)
    .where(lt(refusedRecord.refusedAt, before))
    .limit(limit);
  const removed = await tx
    .delete(refusedRecord)
    .where(sql`(${refusedRecord.attemptId}, ${refusedRecord.number}) in ${rows}`)
    .returning({ number: refusedRecord.number });
  return removed.length === limit;
}

/**
 * Removes a refused record that has been stored since; false when another gateway did so before.
 */
export async function takeRefused(tx: Tx, attemptId: string, number: number): Promise<boolean> {
  const removed = await tx
    .delete(refusedRecord)
    .where(and(eq(refusedRecord.attemptId, attemptId), eq(refusedRecord.number, number)))
    .returning({ number: refusedRecord.number });
  return removed.length === 1;
}
