// Attempts: how a runner keeps the lease of one, and how much of it is stored. `claim.ts` begins
// them, `end.ts` ends them. The lease token is the fence: without it nothing is stored. The
// database's clock alone ends a lease.
import { and, asc, eq, isNull, sql } from 'drizzle-orm';
import type { Actor } from '../actor.ts';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import { notFound } from '../errors.ts';
import { changeJob, type Job, type LockedJob, moveJob } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import type { Acknowledgement, Directive } from '../protocol/control.ts';
import { requireRunner, touchRunner } from '../runner/runner.ts';
import { attempt } from './table.ts';

export type Attempt = typeof attempt.$inferSelect;

export function leaseEnd(seconds: number) {
  return sql<Date>`${now} + ${`${seconds} s`}::interval`;
}

/**
 * Renews the lease of an attempt. A runner with another token, or after the attempt's end, gets the
 * directive ABANDON.
 */
export async function renewLease(
  tx: Tx,
  actor: Actor,
  renewal: { attemptId: string; leaseToken: string; leaseSeconds: number },
): Promise<Acknowledgement> {
  const { attemptId } = renewal;
  const current = (await loadAttempts(tx, [attemptId])).get(attemptId);
  if (!current) throw notFound('Attempt', attemptId);
  await requireRunner(tx, actor, current.runnerId);
  const answer = await changeJob(tx, current.jobId, async (locked) => {
    const row = (await loadAttempts(tx, [attemptId])).get(attemptId); // read again under the lock
    if (!row) throw notFound('Attempt', attemptId);
    if (holdsLease(row, renewal.leaseToken)) {
      await saveAttempt(tx, row, { mark: row.mark }, renewal.leaseSeconds);
    }
    return acknowledge(row, locked.job, renewal.leaseToken);
  });
  if (!answer) throw notFound('Attempt', attemptId);
  await touchRunner(tx, current.runnerId); // after the job's lock, the order of all transactions
  return answer;
}

/**
 * Whether batches with this token are stored: it is the current one, and the attempt has not ended.
 */
export function holdsLease(row: Attempt, leaseToken: string): boolean {
  return row.finishedAt === null && row.leaseToken === leaseToken;
}

/**
 * Makes the acknowledgement for the holder of a token: the number up to which records are stored,
 * and directives.
 */
export function acknowledge(row: Attempt, owner: Job, leaseToken: string): Acknowledgement {
  const directives: Directive[] = [];
  if (!holdsLease(row, leaseToken)) directives.push({ type: 'ABANDON' });
  else if (owner.state === 'CANCELLING') directives.push({ type: 'CANCEL', graceSeconds: owner.cancelGraceSeconds });
  return { attemptId: row.id, committed: row.mark, directives };
}

/** Writes changes of an attempt under its job's lock, and renews its lease unless it has ended. */
export async function saveAttempt(tx: Tx, row: Attempt, change: Partial<Attempt>, leaseSeconds: number): Promise<void> {
  const lease = row.finishedAt === null ? { leaseExpiresAt: leaseEnd(leaseSeconds) } : {};
  await tx
    .update(attempt)
    .set({ ...change, ...lease })
    .where(eq(attempt.id, row.id));
}

/** Records that the command runs, and moves the job to RUNNING. */
export async function markStarted(tx: Tx, locked: LockedJob, row: Attempt, at: Date): Promise<void> {
  row.startedAt = at;
  row.state = 'RUNNING';
  await tx.update(attempt).set({ startedAt: at, state: 'RUNNING' }).where(eq(attempt.id, row.id));
  if (locked.job.state === 'STARTING') await moveJob(tx, locked, 'RUNNING', { reason: null, at });
}

/** Loads attempts by their ids. */
export async function loadAttempts(db: Db, ids: readonly string[]): Promise<Map<string, Attempt>> {
  const rows = await db.select().from(attempt).where(isOneOf(attempt.id, ids));
  return new Map(rows.map((row) => [row.id, row]));
}

/** Loads the attempts of jobs, oldest first, by id of the job. */
export async function loadAttemptsOfJobs(db: Db, jobIds: readonly string[]): Promise<Map<string, Attempt[]>> {
  const rows = await db
    .select()
    .from(attempt)
    .where(isOneOf(attempt.jobId, jobIds))
    .orderBy(asc(attempt.jobId), asc(attempt.number));
  return Map.groupBy(rows, (row) => row.jobId);
}

/** Loads the attempts that run now, by id of the runner. */
export async function loadActiveAttempts(db: Db, runnerIds: readonly string[]): Promise<Map<string, Attempt[]>> {
  const rows = await db
    .select()
    .from(attempt)
    .where(and(isOneOf(attempt.runnerId, runnerIds), isNull(attempt.finishedAt)));
  return Map.groupBy(rows, (row) => row.runnerId);
}
