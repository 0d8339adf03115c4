// Records in: fence, order, store, acknowledge, all in one transaction. What is behind an attempt's high-water mark was
// stored before and is dropped; a hole is refused; what an attempt says after its end, or without the current lease
// token, is never stored.
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

/** An acknowledgement and the runner it is for. */
export type PendingAck = { channel: string; acknowledgement: Acknowledgement };

export type IntakeCounts = {
  records: number;
  duplicates: number;
  holes: number;
  fenced: number;
  damaged: number;
  /** Records that could not be stored and were set aside. */
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

/** What the batches of one transaction share. */
type Round = {
  readonly leaseSeconds: number;
  readonly maxMetricNames: number;
  readonly counts: IntakeCounts;
  /** Runners that were heard. */
  readonly runnerIds: Set<string>;
  /** Attempts as they were read under the locks, each until its first batch is taken. */
  attempts: Map<string, Attempt>;
};

const minuteMs = 60_000;

/**
 * Stores what the batches bring, several attempts in one transaction, and returns what to tell their runners after the
 * commit. `counts` is added to; a caller whose transaction fails must not use it.
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
  // Several jobs are locked in order of their ids, everywhere: two gateways cannot wait for each other in a circle. The
  // rest of their queries travel together: one after the other, most of the time of a commit was waiting for answers.
  const round: Round = { leaseSeconds, maxMetricNames, counts, runnerIds: new Set(), attempts: new Map() };
  if (jobIds.length > 1) {
    await lockJobs(tx, jobIds);
    round.attempts = await loadAttempts(tx, [...attempts.keys()]);
  }
  await together(jobIds, (jobId) =>
    changeJob(tx, jobId, async (locked) => {
      for (const batch of byJob.get(jobId) ?? []) pending.push(await takeBatch(tx, locked, batch, round));
    }),
  );
  for (const runnerId of [...round.runnerIds].sort()) await touchRunner(tx, runnerId);
  return pending;
}

/** Does all of it at once; when something fails, only after all has ended: nothing may be written after the rollback. */
async function together<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const results = await Promise.allSettled(items.map(work));
  const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
  // A query behind the one that failed says only that the transaction is over.
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
    // Every gateway, and whoever listens to Redis, hears what was stored; followers that miss it read the database.
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
 * Sets the only record of a batch aside, under the same fence and order as if it were stored. Null when there is no such
 * attempt.
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

/** Numbers that a record takes as it was sent; one that cannot be read takes one. */
export function lengthOf(value: unknown): number {
  const record = parseRecord(value);
  return record ? numbersOf(record) : 1;
}

/** A record that follows no known shape, e.g. one of a newer runner: it is set aside as it is. */
type UnreadableRecord = { type: 'unreadable'; time: number; value: unknown };

/** Records as they are stored, with the number of the first, and as JSON; null when followers must read the database. */
type Accepted = { first: number; records: (RunnerRecord | UnreadableRecord)[]; json: string | Buffer | null };

/** The records that continue the attempt's stream; moves its mark. */
function acceptNext(attempt: Attempt, batch: DecodedBatch, counts: IntakeCounts): Accepted {
  const first = attempt.mark + 1;
  const records: Accepted['records'] = [];
  // A record belongs to the attempt's life, whatever the runner's clock says.
  const [earliest, latest] = [attempt.createdAt.getTime(), Date.now() + 1_000];
  let asSent = true;
  let isReadable = true;
  let number = batch.first;
  for (const value of batch.records) {
    const sent = parseRecord(value);
    const length = sent ? numbersOf(sent) : 1;
    if (number > attempt.mark + 1) {
      counts.holes++;
      asSent = false;
      break;
    }
    const last = number + length - 1;
    if (last <= attempt.mark) counts.duplicates++;
    else {
      const record = sent ?? { type: 'unreadable', time: latest, value };
      isReadable &&= sent !== null;
      // Only of a gap can a part be stored already.
      if (record.type === 'gap') record.lines = last - Math.max(number, attempt.mark + 1) + 1;
      const time = Math.min(Math.max(record.time, earliest), latest);
      asSent &&= number > attempt.mark && time === record.time;
      record.time = time;
      records.push(record);
      attempt.mark = last;
      if (sent) counts.records++;
      else counts.refused++;
    }
    number += length;
  }
  asSent &&= records.length === batch.records.length;
  return { first, records, json: !isReadable ? null : asSent ? batch.recordsJson : JSON.stringify(records) };
}

/** Stores accepted records in their order: runs of log items and of points together, changes of state where they come. */
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
        // Said again by a supervisor that does not know what a restored database has.
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
        if (attempt.finishedAt !== null) return; // it had too many of them
        firstOfRun = number + 1;
        break;
    }
    number += record.type === 'unreadable' ? 1 : numbersOf(record);
  }
  await flush();
}

const unreadableReason = 'It follows no shape that this version of the gateway knows.';

/** The points that one record reports. */
export function pointsOf({ values, step, epoch, time }: RecordOf<'points'>): NewPoint[] {
  return Object.entries(values).map(([name, value]) => ({ name, value: Number(value), step, epoch, time }));
}

/** Writes what a script reported as an event of its job. */
export async function addReported(
  tx: Tx,
  locked: LockedJob,
  record: RecordOf<'checkpoint'> | RecordOf<'alert'>,
): Promise<void> {
  if (record.type === 'checkpoint') {
    const at = record.step === null ? '' : ` at step ${record.step}`;
    const data = { path: clean(record.path), step: record.step };
    return addEvent(tx, locked, { type: 'CHECKPOINT', message: `Checkpoint ${clean(record.path)}${at}.`, data });
  }
  const data = { level: record.level, title: clean(record.title), text: clean(record.text) };
  return addEvent(tx, locked, { type: 'ALERT', message: data.title || data.text, data });
}

/** Text that Postgres can hold in JSON: the log keeps every byte, an event's words need not. */
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
    ([at, then]) => at > time - minuteMs && (step === null || then <= step),
  );
  const lastKept = earlier.at(-2);
  // A dozen samples a minute are enough for a speed: the newest replaces its neighbour until that is 5 s old.
  const kept = lastKept && time - lastKept[0] < 5_000 ? earlier.slice(0, -1) : earlier;
  const recent: [number, number][] = step === null ? kept : [...kept, [time, step]];
  return { step, totalSteps, epoch, totalEpochs, time, recent };
}
