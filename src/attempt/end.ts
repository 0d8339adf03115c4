// Ends attempts, and moves their jobs on: to an end, back into the queue at once, or back into the
// queue after a pause. Every function needs the lock of the job. Leases, waits and starts expire by
// the database's clock alone.
import { and, asc, eq, isNull, lt, sql, type SQL } from 'drizzle-orm';
import { channels } from '../bus/bus.ts';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { addEvent, changeJob, type LockedJob, moveJob } from '../job/job.ts';
import type { JobState, StateReason } from '../job/state.ts';
import { job, jobStream } from '../job/table.ts';
import type { Tx } from '../live/commit.ts';
import type { RecordOf } from '../protocol/record.ts';
import type { Attempt } from './attempt.ts';
import { decideRetry, judgeEnd, type Retry, runnersToLeaveOut } from './outcome.ts';
import { explainWait } from './place.ts';
import { readCluster, requestOf } from './queue.ts';
import { attempt } from './table.ts';

/** Number of last log lines that are kept with an attempt that failed. */
export const excerptLines = 10;

/**
 * Ends an attempt whose supervisor has reported the end. `lines` are its last log lines, oldest
 * first.
 */
export async function finishAttempt(
  tx: Tx,
  locked: LockedJob,
  row: Attempt,
  record: RecordOf<'finished'>,
  lines: readonly string[],
): Promise<void> {
  const { exitCode, signal, oomKilled = false } = record;
  const at = new Date(Math.max(record.time, row.startedAt?.getTime() ?? 0));
  const seconds = Math.max(0, Math.round((at.getTime() - (row.startedAt ?? row.createdAt).getTime()) / 1000));
  if (locked.job.state === 'CANCELLING') {
    const { reasonCode, reasonMessage } = locked.job;
    const message = `${reasonMessage ?? 'Cancelled.'} It ended after ${seconds} s.`;
    const reason = { code: reasonCode ?? 'REQUESTED', message };
    await writeEnd(tx, locked, row, { state: 'CANCELLED', reason, at, exitCode, signal });
    return moveOn(tx, locked, 'CANCELLED', reason, at);
  }
  const judged = judgeEnd({ ...record, oomKilled, seconds, lines }, locked.job);
  const { state } = judged;
  const reason = { ...judged.reason, logExcerpt: state === 'SUCCEEDED' ? [] : lines.slice(-excerptLines) };
  await writeEnd(tx, locked, row, { state, reason, at, exitCode, signal });
  if (state === 'FAILED') await retryOrEnd(tx, locked, state, reason, at);
  else await moveOn(tx, locked, state, reason, at);
}

/**
 * Queues the job again, or ends it with `state` when it has no retry left. The caller has ended its
 * last attempt.
 */
async function retryOrEnd(
  tx: Tx,
  locked: LockedJob,
  state: 'FAILED' | 'TIMED_OUT',
  reason: StateReason,
  at: Date,
): Promise<void> {
  const { id, effective, timeoutSeconds } = locked.job;
  const attempts = await tx.select().from(attempt).where(eq(attempt.jobId, id)).orderBy(asc(attempt.number));
  const retry = decideRetry(attempts, effective.max_retries, Math.random());
  if (!retry) {
    const isRunnerFault = reason.code === 'RUNNER_LOST' || reason.code === 'RUNNER_DRAINED';
    const hint = isRunnerFault ? 'It happened many times in a row: the job may be what ends its runners.' : reason.hint;
    return moveOn(tx, locked, state, { ...reason, hint }, at);
  }
  if (timeoutSeconds !== null && usedMs(attempts) >= timeoutSeconds * 1000) {
    const message = `${reason.message} Nothing is left of its ${timeoutSeconds} s for another attempt.`;
    const hint = 'Raise timeoutSeconds: it holds for all attempts together.';
    return moveOn(tx, locked, 'TIMED_OUT', { ...reason, code: 'TIMEOUT', message, hint }, at);
  }
  locked.job.leftOut = runnersToLeaveOut(attempts);
  await requeue(tx, locked, retry, reason, at);
}

async function requeue(tx: Tx, locked: LockedJob, retry: Retry, reason: StateReason, at: Date): Promise<void> {
  const nowMs = sql<number>`(extract(epoch from ${now}) * 1000)::float8`;
  const [clock] = await tx.select({ nowMs }).from(job).where(eq(job.id, locked.job.id));
  const freeAt = (clock?.nowMs ?? Date.now()) + retry.delayMs;
  const waitSeconds = locked.job.effective.queue_timeout_seconds;
  locked.job.notBefore = retry.delayMs > 0 ? new Date(freeAt) : null;
  locked.job.queueExpiresAt = waitSeconds === undefined ? null : new Date(freeAt + waitSeconds * 1000);
  const message = `${reason.message} Then comes ${retry.which ?? 'another attempt'}.`;
  const backoff: StateReason = { ...reason, code: 'RETRY_BACKOFF', message };
  await moveOn(tx, locked, 'QUEUED', retry.delayMs > 0 ? backoff : reason, at);
}

/** Returns the time that these attempts ran together, in milliseconds. */
export function usedMs(attempts: readonly Pick<Attempt, 'startedAt' | 'finishedAt'>[]): number {
  return attempts.reduce(
    (sum, { startedAt, finishedAt }) => sum + (startedAt && finishedAt ? +finishedAt - +startedAt : 0),
    0,
  );
}

/**
 * Moves the job to `state` after the end of its attempt, and notifies runners that GPUs are free.
 */
export async function moveOn(tx: Tx, locked: LockedJob, state: JobState, reason: StateReason, at: Date): Promise<void> {
  // SUCCEEDED can only be reached from RUNNING. FAILED can be reached from STARTING too: a command
  // that could not be started never ran.
  if (locked.job.state === 'STARTING' && state === 'SUCCEEDED')
    await moveJob(tx, locked, 'RUNNING', { reason: null, at });
  await moveJob(tx, locked, state, { reason, at });
  tx.notify(channels.work);
}

/** Writes the end of an attempt and its event. Moving the job is left to the caller. */
export async function writeEnd(
  tx: Tx,
  locked: LockedJob,
  row: Attempt,
  end: { state: JobState; reason: StateReason; at: Date; exitCode: number | null; signal: string | null },
): Promise<void> {
  const { state, reason, at, exitCode, signal } = end;
  const { code: reasonCode, message: reasonMessage, hint: reasonHint = null, logExcerpt = [] } = reason;
  const reasons = { reasonCode, reasonMessage, reasonHint, logExcerpt };
  Object.assign(row, { state, finishedAt: at, exitCode, signal, ...reasons });
  await tx
    .update(attempt)
    .set({ state, finishedAt: at, exitCode, signal, ...reasons })
    .where(eq(attempt.id, row.id));
  await addEvent(tx, locked, {
    type: 'ATTEMPT_FINISHED',
    actorId: row.runnerId,
    message: `Attempt ${row.number} ended: ${reason.message}`,
    data: { attemptId: row.id, exitCode, signal },
  });
}

/**
 * Lists running attempts whose lease has expired by the database's clock, in the order of their
 * jobs.
 */
export async function listLapsed(db: Db, limit: number): Promise<Attempt[]> {
  return db
    .select()
    .from(attempt)
    .where(and(isNull(attempt.finishedAt), lt(attempt.leaseExpiresAt, now)))
    .orderBy(asc(attempt.jobId))
    .limit(limit);
}

/**
 * Kinds of loss: the lease expired, or the runner reports that the supervisor is dead and none of
 * its processes runs.
 */
const losses = {
  LEASE: {
    condition: lt(attempt.leaseExpiresAt, now),
    message: 'The runner stopped sending heartbeats.',
    hint: 'Look whether the runner is up and reaches the gateway. A loss costs the job none of its retries.',
  },
  SUPERVISOR: {
    condition: undefined,
    message: 'Its supervisor on the runner was killed.',
    hint: 'Look who killed it, e.g. the kernel for want of memory. A loss costs the job none of its retries.',
  },
};

/**
 * Ends a lost attempt. Its job queues again at once, and fails only after five losses in a row.
 * Returns null, and changes nothing, when the attempt has ended or its lease was renewed meanwhile.
 * `logExcerpt` holds its last log lines.
 */
export async function loseAttempt(
  tx: Tx,
  locked: LockedJob,
  attemptId: string,
  { how, logExcerpt }: { how: keyof typeof losses; logExcerpt: string[] },
): Promise<Attempt | null> {
  const { condition, message, hint } = losses[how];
  const row = await findOpen(tx, attemptId, condition);
  if (!row) return null;
  const at = new Date();
  const reason: StateReason = { code: 'RUNNER_LOST', message, hint, logExcerpt };
  await writeEnd(tx, locked, row, { state: 'FAILED', reason, at, exitCode: null, signal: null });
  if (locked.job.state === 'CANCELLING') {
    const code = locked.job.reasonCode ?? 'REQUESTED';
    await moveOn(tx, locked, 'CANCELLED', { code, message: 'Cancelled; the runner was lost.' }, at);
    return row;
  }
  await retryOrEnd(tx, locked, 'FAILED', reason, at);
  return row;
}

/**
 * Ends an attempt as FAILED because a record that it cannot do without was refused. The job is not
 * retried: the database would refuse the record again. An attempt that has ended stays as it is.
 */
export async function refuseAttempt(tx: Tx, locked: LockedJob, row: Attempt, message: string): Promise<void> {
  if (row.finishedAt !== null) return;
  const at = new Date();
  const hint = 'Look at the alerts of the job. What was set aside is tried once more when a gateway starts.';
  const reason: StateReason = { code: 'RECORD_REFUSED', message, hint };
  await writeEnd(tx, locked, row, { state: 'FAILED', reason, at, exitCode: null, signal: null });
  if (locked.job.state === 'CANCELLING') {
    const code = locked.job.reasonCode ?? 'REQUESTED';
    await moveOn(tx, locked, 'CANCELLED', { code, message: `Cancelled. ${message}` }, at);
  } else {
    await moveOn(tx, locked, 'FAILED', reason, at);
  }
  tx.notify(channels.runner(row.runnerId));
}

/**
 * Lists attempts whose command did not start in time by the database's clock, in the order of their
 * jobs.
 */
export async function listLateStarts(db: Db, limit: number): Promise<Attempt[]> {
  return db
    .select()
    .from(attempt)
    .where(and(isLateStart, isNull(attempt.finishedAt)))
    .orderBy(asc(attempt.jobId))
    .limit(limit);
}

const isLateStart = and(eq(attempt.state, 'STARTING'), lt(attempt.startExpiresAt, now));

/**
 * Ends an attempt whose command did not start in time. Its runner is told to abandon it, and the
 * job is retried as after a failure. Returns null, and changes nothing, when the command runs by
 * now or the job is being cancelled.
 */
export async function expireStart(tx: Tx, locked: LockedJob, attemptId: string): Promise<Attempt | null> {
  const row = locked.job.state === 'STARTING' ? await findOpen(tx, attemptId, isLateStart) : null;
  if (!row) return null;
  const at = new Date();
  const seconds = locked.job.effective.start_timeout_seconds;
  const message = `The command did not run within ${seconds} s of its claim.`;
  const reason: StateReason = {
    code: 'START_TIMEOUT',
    message,
    hint: 'Look at the runner, or raise startTimeoutSeconds.',
  };
  await writeEnd(tx, locked, row, { state: 'TIMED_OUT', reason, at, exitCode: null, signal: null });
  await retryOrEnd(tx, locked, 'TIMED_OUT', reason, at);
  tx.notify(channels.runner(row.runnerId));
  return row;
}

async function findOpen(tx: Tx, id: string, condition: SQL | undefined): Promise<Attempt | null> {
  const [row] = await tx
    .select()
    .from(attempt)
    .where(and(eq(attempt.id, id), isNull(attempt.finishedAt), condition));
  return row ?? null;
}

/**
 * Ends up to `limit` queued jobs that waited too long by the database's clock. Returns their
 * number.
 */
export async function expireWaits(tx: Tx, limit: number): Promise<number> {
  const isLate = and(eq(job.state, 'QUEUED'), lt(job.queueExpiresAt, now));
  const expired = await tx
    .select({ id: job.id })
    .from(jobStream)
    .innerJoin(job, eq(job.id, jobStream.jobId))
    .where(isLate)
    .orderBy(asc(job.id))
    .limit(limit)
    .for('update', { of: jobStream, skipLocked: true });
  const machines = expired.length > 0 ? (await readCluster(tx)).machines : [];
  for (const { id } of expired) {
    await changeJob(tx, id, async (locked) => {
      // a runner claimed it before this transaction had its lock
      if (locked.job.state !== 'QUEUED') return;
      const seconds = locked.job.effective.queue_timeout_seconds;
      const wait = explainWait(requestOf(locked.job), machines);
      const message = `No runner took it within ${seconds} s. ${wait.message}`;
      const hint = `Raise queueTimeoutSeconds. ${wait.hint ?? ''}`.trim();
      await moveOn(tx, locked, 'TIMED_OUT', { code: 'QUEUE_TIMEOUT', message, hint }, new Date());
    });
  }
  return expired.length;
}
