// Stores the records of a batch in one transaction: it checks the lease token (the fence) and the
// order, stores, and acknowledges. Records up to the attempt's mark were stored before and are
// dropped; a hole in the numbers is refused. Records after the attempt's end, or without the
// current lease token, are never stored.
import { acknowledge, type Attempt, holdsLease, loadAttempts, markStarted, saveAttempt } from '../attempt/attempt.ts';
import { finishAttempt } from '../attempt/end.ts';
import { searchedLines } from '../attempt/outcome.ts';
import { channels } from '../bus/bus.ts';
import { databaseErrorCode } from '../database/database.ts';
import { lockJobs } from '../job/ended.ts';
import { addEvent, changeJob, type LockedJob } from '../job/job.ts';
import type { Progress } from '../job/table.ts';
import type { Tx } from '../live/commit.ts';
import { appendLog } from '../log/append.ts';
import type { NewGap, NewLine } from '../log/log.ts';
import { readExcerpt } from '../log/read.ts';
import { appendPoints, closeAllWindows, type NewPoint } from '../metric/append.ts';
import type { Acknowledgement } from '../protocol/control.ts';
import {
  type DecodedBatch,
  linesCrcAfter,
  numbersOf,
  parseRecord,
  type RecordOf,
  type RunnerRecord,
} from '../protocol/record.ts';
import { touchRunner } from '../runner/runner.ts';
import { refuseRecord } from './refuse.ts';

/** An acknowledgement, and the channel of the runner to which it will be sent. */
export type PendingAck = { channel: string; acknowledgement: Acknowledgement };

export type IntakeCounts = {
  /** Stored records. */
  records: number;
  /** Records that were stored before. */
  duplicates: number;
  /** Batches with records beyond the next number of their attempt. */
  holes: number;
  /** Batches whose lease token was not the current one. */
  fenced: number;
  /** Uplink entries that hold no batch. */
  damaged: number;
  /** Records that could not be stored, and are kept in `refused_record`. */
  refused: number;
};

export const noCounts = (): IntakeCounts => ({
  records: 0,
  duplicates: 0,
  holes: 0,
  fenced: 0,
  damaged: 0,
  refused: 0,
});

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

/** Progress samples older than this do not count for the speed. */
const minuteMs = 60_000;

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
    await store(tx, locked, attempt, accepted, maxMetricNames);
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

/**
 * Count of numbers that a record takes: a gap takes one for each missing record, any other record
 * one, an unreadable one too.
 */
export function lengthOf(value: unknown): number {
  const record = parseRecord(value);
  return record ? numbersOf(record) : 1;
}

/** A record of unknown shape, e.g. of a newer runner. It is kept as a refused record. */
type UnreadableRecord = { type: 'unreadable'; time: number; value: unknown };

/**
 * Records to store. `first` is the number of the first. `json` is their text for followers; null
 * when followers must read the database.
 */
type Accepted = { first: number; records: (RunnerRecord | UnreadableRecord)[]; json: string | Buffer | null };

/**
 * Picks the records of a batch that continue the attempt's stream, and moves its mark behind them.
 */
function acceptNext(attempt: Attempt, batch: DecodedBatch, counts: IntakeCounts): Accepted {
  const first = attempt.mark + 1;
  const records: Accepted['records'] = [];
  // Times are moved into the attempt's life, since the runner's clock may be wrong.
  const [earliest, latest] = [attempt.createdAt.getTime(), Date.now() + 1_000];
  /** Whether the records are stored unchanged, so that their text can be passed on as it came. */
  let asSent = true;
  let isReadable = true;
  let number = batch.first;
  for (const value of batch.records) {
    const parsed = parseRecord(value);
    const length = parsed ? numbersOf(parsed) : 1;
    if (number > attempt.mark + 1) {
      counts.holes++;
      asSent = false;
      break;
    }
    const last = number + length - 1;
    if (last <= attempt.mark) counts.duplicates++;
    else {
      const record = parsed ?? { type: 'unreadable', time: latest, value };
      isReadable &&= parsed !== null;
      // A gap takes several numbers, and its first ones may be stored already; other records take
      // one.
      if (record.type === 'gap') record.lines = last - Math.max(number, attempt.mark + 1) + 1;
      const time = Math.min(Math.max(record.time, earliest), latest);
      asSent &&= number > attempt.mark && time === record.time;
      record.time = time;
      records.push(record);
      attempt.mark = last;
      if (parsed) counts.records++;
      else counts.refused++;
    }
    number += length;
  }
  asSent &&= records.length === batch.records.length;
  return { first, records, json: !isReadable ? null : asSent ? batch.recordsJson : JSON.stringify(records) };
}

/**
 * Stores accepted records in their order. Consecutive log lines and points are collected and
 * written together; a change of state is written where it comes.
 */
async function store(
  tx: Tx,
  locked: LockedJob,
  attempt: Attempt,
  { first, records }: Accepted,
  maxMetricNames: number,
): Promise<void> {
  const log: (NewLine | NewGap)[] = [];
  const points: NewPoint[] = [];
  const texts: string[] = [];
  let firstOfRun = first;
  const flush = async () => {
    attempt.lines += texts.length;
    attempt.linesCrc = linesCrcAfter(attempt.linesCrc, texts.splice(0));
    await appendLog(tx, locked, attempt.number, log.splice(0));
    await appendPoints(tx, locked, attempt.number, firstOfRun, points.splice(0), maxMetricNames);
  };
  let number = first;
  for (const record of records) {
    switch (record.type) {
      case 'line':
        if (record.stream !== 'SYSTEM') texts.push(record.text);
        log.push(record);
        break;
      case 'gap':
        log.push(record);
        break;
      case 'points':
        points.push(...pointsOf(record));
        break;
      case 'started':
        // A supervisor may repeat `started` after the database was restored from a backup.
        if (attempt.startedAt === null) await markStarted(tx, locked, attempt, new Date(record.time));
        break;
      case 'progress':
        locked.job.progress = advance(locked.job.progress, record, record.time);
        break;
      case 'checkpoint':
      case 'alert':
        await addReported(tx, locked, record);
        break;
      case 'finished':
        await flush();
        await finish(tx, locked, attempt, record);
        break;
      case 'unreadable':
        await flush();
        await refuseRecord(tx, locked, attempt, { number, record: record.value, reason: unreadableReason });
        // the attempt had too many unreadable records, and was ended
        if (attempt.finishedAt !== null) return;
        firstOfRun = number + 1;
        break;
    }
    number += record.type === 'unreadable' ? 1 : numbersOf(record);
  }
  await flush();
}

const unreadableReason = 'It follows no shape that this version of the gateway knows.';

/** Returns the points that one record reports. */
export function pointsOf({ values, step, epoch, time }: RecordOf<'points'>): NewPoint[] {
  return Object.entries(values).map(([name, value]) => ({ name, value: Number(value), step, epoch, time }));
}

/** Writes a checkpoint or an alert that the training script reported as an event of its job. */
export async function addReported(
  tx: Tx,
  locked: LockedJob,
  record: RecordOf<'checkpoint'> | RecordOf<'alert'>,
): Promise<void> {
  if (record.type === 'checkpoint') {
    const place = record.step === null ? '' : ` at step ${record.step}`;
    const data = { path: clean(record.path), step: record.step };
    return addEvent(tx, locked, { type: 'CHECKPOINT', message: `Checkpoint ${clean(record.path)}${place}.`, data });
  }
  const data = { level: record.level, title: clean(record.title), text: clean(record.text) };
  return addEvent(tx, locked, { type: 'ALERT', message: data.title || data.text, data });
}

/**
 * Replaces characters that JSON in Postgres cannot hold. The log keeps every byte; the message of
 * an event need not.
 */
function clean(text: string): string {
  return text.replaceAll('\0', '�').toWellFormed();
}

async function finish(tx: Tx, locked: LockedJob, attempt: Attempt, record: RecordOf<'finished'>): Promise<void> {
  if (record.lines !== attempt.lines || record.linesCrc !== attempt.linesCrc) {
    await addEvent(tx, locked, {
      type: 'ALERT',
      message: `The log of attempt ${attempt.number} differs from what its runner counted.`,
      data: { counted: record.lines, stored: attempt.lines },
    });
  }
  await closeAllWindows(tx, locked);
  const lines = await readExcerpt(tx, locked.job.id, locked.stream.line, {
    maxLines: searchedLines,
    attempt: attempt.number,
  });
  await finishAttempt(tx, locked, attempt, { ...record, message: clean(record.message) }, lines);
}

function advance(before: Progress | null, record: RecordOf<'progress'>, time: number): Progress {
  const { step, totalSteps, epoch, totalEpochs } = record;
  const earlier = (before?.recent ?? []).filter(
    ([sampleTime, sampleStep]) => sampleTime > time - minuteMs && (step === null || sampleStep <= step),
  );
  const lastKept = earlier.at(-2);
  // A dozen samples a minute are enough to compute a speed: the last sample is replaced until 5 s
  // have passed since the one before it.
  const kept = lastKept && time - lastKept[0] < 5_000 ? earlier.slice(0, -1) : earlier;
  const recent: [number, number][] = step === null ? kept : [...kept, [time, step]];
  return { step, totalSteps, epoch, totalEpochs, time, recent };
}
