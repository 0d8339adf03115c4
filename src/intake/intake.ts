// Stores the records of a batch in one transaction: it checks the lease token (the fence) and the
// order, stores, and acknowledges. Records up to the attempt's mark were stored before and are
// dropped; a hole in the numbers is refused. Records after the attempt's end, or without the
// current lease token, are never stored.
import { acknowledge, type Attempt, holdsLease, loadAttempts, saveAttempt } from '../attempt/attempt.ts';
import { channels } from '../bus/bus.ts';
import { databaseErrorCode } from '../database/database.ts';
import { lockJobs } from '../job/ended.ts';
import { changeJob, type LockedJob } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import type { Acknowledgement } from '../protocol/control.ts';
import type { DecodedBatch } from '../protocol/record.ts';
import { touchRunner } from '../runner/runner.ts';
import { acceptNext, lengthOf } from './accept.ts';
import type { IntakeCounts } from './counts.ts';
import { refuseRecord } from './refuse.ts';
import { storeRecords } from './store.ts';

/** An acknowledgement, and the channel of the runner to which it will be sent. */
export type PendingAck = { channel: string; acknowledgement: Acknowledgement };

/** State that the batches of one transaction share. */
type Round = {
  readonly leaseSeconds: number;
  readonly maxMetricNames: number;
  readonly counts: IntakeCounts;
  /** Runners of the stored batches: they count as seen. */
  readonly runnerIds: Set<string>;
  /**
   * Attempts that were read once all jobs were locked. Each is taken out by its first batch; a
   * second batch reads its attempt anew.
   */
  attempts: Map<string, Attempt>;
};

/**
 * Stores batches of one or more attempts in the transaction `tx`. Returns the acknowledgements to
 * send after the commit. Adds to `counts`; after a failed transaction they are wrong.
 */
export async function takeBatches(
  tx: Tx,
  batches: readonly DecodedBatch[],
  leaseSeconds: number,
  counts: IntakeCounts,
  maxMetricNames = Infinity,
): Promise<PendingAck[]> {
  const attempts = await loadAttempts(tx, [...new Set(batches.map((batch) => batch.attemptId))]);
  const byJob = Map.groupBy(
    batches.filter((batch) => attempts.has(batch.attemptId)),
    (batch) => attempts.get(batch.attemptId)?.jobId ?? '',
  );
  const jobIds = [...byJob.keys()];
  const pending: PendingAck[] = [];
  // Jobs are locked in the order of their ids, everywhere: two gateways can never wait for each
  // other in a circle. The other queries of the jobs run side by side: one after the other, a
  // commit spent most of its time waiting for answers.
  const round: Round = { leaseSeconds, maxMetricNames, counts, runnerIds: new Set(), attempts: new Map() };
  if (jobIds.length > 1) {
    await lockJobs(tx, jobIds);
    round.attempts = await loadAttempts(tx, [...attempts.keys()]);
  }
  await runTogether(jobIds, (jobId) =>
    changeJob(tx, jobId, async (locked) => {
      for (const batch of byJob.get(jobId) ?? []) pending.push(await takeBatch(tx, locked, batch, round));
    }),
  );
  for (const runnerId of [...round.runnerIds].sort()) await touchRunner(tx, runnerId);
  return pending;
}

/**
 * Runs `work` for all items at once. When one fails, it rejects only after all have ended, since a
 * query after the rollback would write outside of the transaction.
 */
async function runTogether<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const results = await Promise.allSettled(items.map(work));
  const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
  // Queries behind the first failed one fail with 25P02, "the transaction is aborted", which hides
  // the cause.
  const first = failures.find((failure) => databaseErrorCode(failure) !== '25P02') ?? failures[0];
  if (failures.length > 0) throw first;
}

async function takeBatch(
  tx: Tx,
  locked: LockedJob,
  batch: DecodedBatch,
  { leaseSeconds, maxMetricNames, counts, runnerIds, attempts }: Round,
): Promise<PendingAck> {
  const attempt = await loadAttempt(tx, batch, attempts);
  if (holdsLease(attempt, batch.leaseToken)) {
    const accepted = acceptNext(attempt, batch, counts);
    // The notification carries the stored records, so that followers need no read; a follower that
    // misses it reads the database.
    if (accepted.records.length > 0 && accepted.json !== null) {
      const head = `{"attempt":${attempt.number},"first":${accepted.first},"seq":${locked.stream.line + 1},"records":`;
      tx.notify(channels.job(locked.job.id), {}, [[head, accepted.json, '}']]);
    }
    await storeRecords(tx, locked, attempt, accepted, maxMetricNames);
    await saveMark(tx, attempt, leaseSeconds);
    runnerIds.add(attempt.runnerId);
  } else {
    counts.fenced++;
  }
  return answer(locked, attempt, batch);
}

async function loadAttempt(tx: Tx, batch: DecodedBatch, attempts: Map<string, Attempt>): Promise<Attempt> {
  const { attemptId } = batch;
  const attempt = attempts.get(attemptId) ?? (await loadAttempts(tx, [attemptId])).get(attemptId);
  attempts.delete(attemptId);
  if (!attempt) throw new Error(`Attempt ${attemptId} is gone.`);
  return attempt;
}

async function saveMark(tx: Tx, attempt: Attempt, leaseSeconds: number): Promise<void> {
  const { mark, lines, linesCrc } = attempt;
  await saveAttempt(tx, attempt, { mark, lines, linesCrc }, leaseSeconds);
}

function answer(locked: LockedJob, attempt: Attempt, { leaseToken, send }: DecodedBatch): PendingAck {
  const acknowledgement = acknowledge(attempt, locked.job, leaseToken);
  const channel = channels.runner(attempt.runnerId);
  return { channel, acknowledgement: send === undefined ? acknowledgement : { ...acknowledgement, send } };
}

/**
 * Stores the only record of a batch as refused, under the same fence and order as if it were
 * stored. Returns null when there is no such attempt.
 */
export async function refuseBatch(
  tx: Tx,
  batch: DecodedBatch,
  { reason, leaseSeconds, counts }: { reason: string; leaseSeconds: number; counts: IntakeCounts },
): Promise<PendingAck | null> {
  const { attemptId, first: number } = batch;
  const [record] = batch.records;
  const jobId = (await loadAttempts(tx, [attemptId])).get(attemptId)?.jobId;
  if (jobId === undefined) return null;
  return changeJob(tx, jobId, async (locked) => {
    const attempt = await loadAttempt(tx, batch, new Map());
    const last = number + lengthOf(record) - 1;
    const isNext = number <= attempt.mark + 1 && last > attempt.mark;
    if (holdsLease(attempt, batch.leaseToken) && isNext) {
      attempt.mark = last;
      await refuseRecord(tx, locked, attempt, { number, record, reason });
      counts.refused++;
      await saveMark(tx, attempt, leaseSeconds);
    }
    return answer(locked, attempt, batch);
  });
}
