// How attempts end, and what that means for their jobs: over, queued again at once, or queued again after a pause. Every
// function works under the lock of the job; a lease, a wait and a start end by the database's clock alone.
import { and, asc, eq, isNull, lt, type SQL, sql } from 'drizzle-orm';
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

export const excerptLines = 10;

/** The attempt ended, as its supervisor proved. `lines` are its last ones, oldest first. */
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

/** Queues the job again, or ends it when no retry is left; its last attempt has ended. */
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
    const ours = reason.code === 'RUNNER_LOST' || reason.code === 'RUNNER_DRAINED';
    const hint = ours ? 'It happened many times in a row: the job may be what ends its runners.' : reason.hint;
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

/** Milliseconds that attempts ran. */
export function usedMs(attempts: readonly Pick<Attempt, 'startedAt' | 'finishedAt'>[]): number {
  return attempts.reduce(
    (sum, { startedAt, finishedAt }) => sum + (startedAt && finishedAt ? +finishedAt - +startedAt : 0),
    0,
  );
}

/** Moves the job to what the end of its attempt means for it. */
export async function moveOn(tx: Tx, locked: LockedJob, state: JobState, reason: StateReason, at: Date): Promise<void> {
  // A command that could not be started leaves a job that never ran: the way to SUCCEEDED leads through RUNNING.
  if (locked.job.state === 'STARTING' && state === 'SUCCEEDED')
    await moveJob(tx, locked, 'RUNNING', { reason: null, at });
  await moveJob(tx, locked, state, { reason, at });
  tx.notify(channels.work);
}

/** Writes the end of an attempt, with its event. The job is the caller's to move. */
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

/** Attempts whose lease has lapsed by the database's clock, in order of their jobs. */
export async function listLapsed(db: Db, limit: number): Promise<Attempt[]> {
  return db
    .select()
    .from(attempt)
    .where(and(isNull(attempt.finishedAt), lt(attempt.leaseExpiresAt, now)))
    .orderBy(asc(attempt.jobId))
    .limit(limit);
}

/** How an attempt is lost: its lease lapsed, or its runner says that its supervisor is dead and nothing of it runs. */
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
 * Ends an attempt that is lost: the job queues again at once, and fails only when that happened many times in a row.
 * Null when it has ended, or was heard before its lease is taken: then nothing happens. `logExcerpt`: its last lines.
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
 * Ends an attempt of which a record that it cannot do without was refused. It is not tried again: what the database refused
 * once, it would refuse again. Nothing happens to an attempt that has ended.
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

/** Attempts whose command did not run in time by the database's clock, in order of their jobs. */
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
 * Ends an attempt whose command does not run in time: its runner is told to let go, and the job runs again as after a
 * failure. Null when it runs by now, or is being cancelled: then nothing happens.
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

/** Ends queued jobs that waited too long by the database's clock, up to `limit`; how many there were. */
export async function expireWaits(tx: Tx, limit: number): Promise<number> {
  const isLate = and(eq(job.state, 'QUEUED'), lt(job.queueExpiresAt, now));
  const late = await tx
    .select({ id: job.id })
    .from(jobStream)
    .innerJoin(job, eq(job.id, jobStream.jobId))
    .where(isLate)
    .orderBy(asc(job.id))
    .limit(limit)
    .for('update', { of: jobStream, skipLocked: true });
  const machines = late.length > 0 ? (await readCluster(tx)).machines : [];
  for (const { id } of late) {
    await changeJob(tx, id, async (locked) => {
      if (locked.job.state !== 'QUEUED') return; // it was claimed before we had its lock
      const seconds = locked.job.effective.queue_timeout_seconds;
      const wait = explainWait(requestOf(locked.job), machines);
      const message = `No runner took it within ${seconds} s. ${wait.message}`;
      const hint = `Raise queueTimeoutSeconds. ${wait.hint ?? ''}`.trim();
      await moveOn(tx, locked, 'TIMED_OUT', { code: 'QUEUE_TIMEOUT', message, hint }, new Date());
    });
  }
  return late.length;
}
