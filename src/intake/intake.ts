// Records in: fence, order, store, acknowledge, all in one transaction. What is behind an attempt's high-water mark was
// stored before and is dropped; a hole is refused; what an attempt says after its end, or without the current lease
// token, is never stored.
import type { Actor } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import { acknowledge, type Attempt, holdsLease, loadAttempts, markStarted, saveAttempt } from '../attempt/attempt.ts';
import { endLateStart, excerptLines, finishAttempt, loseAttempt } from '../attempt/end.ts';
import { searchedLines } from '../attempt/outcome.ts';
import { databaseErrorCode } from '../database/database.ts';
import { lockJobs } from '../job/ended.ts';
import { notFound } from '../errors.ts';
import { addEvent, changeJob, type LockedJob } from '../job/job.ts';
import type { Progress } from '../job/table.ts';
import type { Tx } from '../live/commit.ts';
import { appendLog, type NewGap, type NewLine, readExcerpt } from '../log/log.ts';
import { appendPoints, closeAllWindows, type NewPoint } from '../metric/append.ts';
import type { Acknowledgement } from '../protocol/control.ts';
import {
  decodeBatch,
  type DecodedBatch,
  linesCrcAfter,
  numbersOf,
  parseRecord,
  type RecordOf,
  type RunnerRecord,
} from '../protocol/record.ts';
import { requireRunner, touchRunner } from '../runner/runner.ts';

/** An acknowledgement and the runner it is for. */
export type Told = { channel: string; acknowledgement: Acknowledgement };

export type IntakeCounts = { records: number; duplicates: number; holes: number; fenced: number; damaged: number };

/** What the batches of one transaction share. */
type Round = {
  readonly leaseSeconds: number;
  readonly counts: IntakeCounts;
  readonly maxMetricNames: number;
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
  encoded: readonly (string | Buffer)[],
  leaseSeconds: number,
  counts: IntakeCounts,
  maxMetricNames = Infinity,
): Promise<Told[]> {
  const batches: DecodedBatch[] = [];
  for (const bytes of encoded) {
    const batch = decodeBatch(bytes);
    if (batch) batches.push(batch);
    else counts.damaged++;
  }
  const attempts = await loadAttempts(tx, [...new Set(batches.map((batch) => batch.attemptId))]);
  const byJob = Map.groupBy(
    batches.filter((batch) => attempts.has(batch.attemptId)),
    (batch) => attempts.get(batch.attemptId)?.jobId ?? '',
  );
  const jobIds = [...byJob.keys()];
  const told: Told[] = [];
  // Several jobs are locked in order of their ids, everywhere: two gateways cannot wait for each other in a circle. The
  // rest of their queries travel together: one after the other, most of the time of a commit was waiting for answers.
  const round: Round = { leaseSeconds, counts, maxMetricNames, runnerIds: new Set(), attempts: new Map() };
  if (jobIds.length > 1) {
    await lockJobs(tx, jobIds);
    round.attempts = await loadAttempts(tx, [...attempts.keys()]);
  }
  await together(jobIds, (jobId) =>
    changeJob(tx, jobId, async (locked) => {
      for (const batch of byJob.get(jobId) ?? []) told.push(await takeBatch(tx, locked, batch, round));
    }),
  );
  for (const runnerId of [...round.runnerIds].sort()) await touchRunner(tx, runnerId);
  return told;
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
  { leaseSeconds, counts, maxMetricNames, runnerIds, attempts }: Round,
): Promise<Told> {
  const { attemptId } = batch;
  const attempt = attempts.get(attemptId) ?? (await loadAttempts(tx, [attemptId])).get(attemptId);
  attempts.delete(attemptId);
  if (!attempt) throw new Error(`Attempt ${batch.attemptId} is gone.`);
  const channel = channels.runner(attempt.runnerId);
  if (holdsLease(attempt, batch.leaseToken)) {
    const accepted = acceptNext(attempt, batch, counts);
    // Every gateway, and whoever listens to Redis, hears what was stored; followers that miss it read the database.
    if (accepted.records.length > 0) {
      const of = `{"attempt":${attempt.number},"first":${accepted.first},"seq":${locked.stream.line + 1},"records":`;
      tx.nudge(channels.job(locked.job.id), {}, [[of, accepted.json, '}']]);
    }
    await store(tx, locked, attempt, accepted, maxMetricNames);
    const { mark, lines, linesCrc } = attempt;
    await saveAttempt(tx, attempt, { mark, lines, linesCrc }, leaseSeconds);
    runnerIds.add(attempt.runnerId);
  } else {
    counts.fenced++;
  }
  const { leaseToken, send } = batch;
  const told = acknowledge(attempt, locked.job, leaseToken);
  return { channel, acknowledgement: send === undefined ? told : { ...told, send } };
}

/** Records as they are stored, with the number of the first, and as JSON. */
type Accepted = { first: number; records: RunnerRecord[]; json: string | Buffer };

/** The records that continue the attempt's stream; moves its mark. */
function acceptNext(attempt: Attempt, batch: DecodedBatch, counts: IntakeCounts): Accepted {
  const first = attempt.mark + 1;
  const records: RunnerRecord[] = [];
  // A record belongs to the attempt's life, whatever the runner's clock says.
  const [earliest, latest] = [attempt.createdAt.getTime(), Date.now() + 1_000];
  let asSent = true;
  let number = batch.first;
  for (const value of batch.records) {
    const sent = parseRecord(value);
    const record = sent ?? unreadable();
    const length = numbersOf(record);
    if (number > attempt.mark + 1) {
      counts.holes++;
      asSent = false;
      break;
    }
    const last = number + length - 1;
    if (last <= attempt.mark) counts.duplicates++;
    else {
      // Only of a gap can a part be stored already.
      if (record.type === 'gap') record.lines = last - Math.max(number, attempt.mark + 1) + 1;
      const time = Math.min(Math.max(record.time, earliest), latest);
      asSent &&= sent !== null && number > attempt.mark && time === record.time;
      record.time = time;
      records.push(record);
      attempt.mark = last;
      counts.records++;
    }
    number += length;
  }
  asSent &&= records.length === batch.records.length;
  return { first, records, json: asSent ? batch.recordsJson : JSON.stringify(records) };
}

/** What is stored for a record that follows no known shape. */
function unreadable(): RunnerRecord {
  const text = 'A record of the runner could not be read and was set aside.';
  return { type: 'line', time: Date.now(), stream: 'SYSTEM', text };
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
  const flush = async () => {
    attempt.lines += texts.length;
    attempt.linesCrc = linesCrcAfter(attempt.linesCrc, texts.splice(0));
    await appendLog(tx, locked, attempt.number, log.splice(0));
    await appendPoints(tx, locked, attempt.number, first, points.splice(0), maxMetricNames);
  };
  for (const record of records) {
    const { time } = record;
    switch (record.type) {
      case 'line':
        if (record.stream !== 'SYSTEM') texts.push(record.text);
        log.push(record);
        break;
      case 'gap':
        log.push(record);
        break;
      case 'points':
        for (const [name, value] of Object.entries(record.values)) {
          points.push({ name, value: Number(value), step: record.step, epoch: record.epoch, time });
        }
        break;
      case 'started':
        await markStarted(tx, locked, attempt, new Date(time));
        break;
      case 'progress':
        locked.job.progress = advance(locked.job.progress, record, time);
        break;
      case 'checkpoint': {
        const at = record.step === null ? '' : ` at step ${record.step}`;
        const data = { path: clean(record.path), step: record.step };
        await addEvent(tx, locked, { type: 'CHECKPOINT', message: `Checkpoint ${clean(record.path)}${at}.`, data });
        break;
      }
      case 'alert': {
        const data = { level: record.level, title: clean(record.title), text: clean(record.text) };
        await addEvent(tx, locked, { type: 'ALERT', message: data.title || data.text, data });
        break;
      }
      case 'finished':
        await flush();
        await finish(tx, locked, attempt, record);
        break;
    }
  }
  await flush();
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

/** Ends one attempt whose lease lapsed, with its windows and a line in the log; false when it was heard in the meantime. */
export async function endLapsed(tx: Tx, lapsed: Attempt): Promise<boolean> {
  return lose(tx, lapsed, 'LEASE');
}

/** Ends an attempt at once of which its runner says that nothing runs any more; one that has ended stays as it is. */
export async function endLost(tx: Tx, actor: Actor, lost: { attemptId: string; runnerId: string }): Promise<void> {
  const { attemptId, runnerId } = lost;
  await requireRunner(tx, actor, runnerId);
  const row = (await loadAttempts(tx, [attemptId])).get(attemptId);
  if (row?.runnerId !== runnerId) throw notFound('Attempt', attemptId);
  await lose(tx, row, 'SUPERVISOR');
}

async function lose(tx: Tx, open: Attempt, how: 'LEASE' | 'SUPERVISOR'): Promise<boolean> {
  const ended = await changeJob(tx, open.jobId, async (locked) => {
    const limits = { maxLines: excerptLines, attempt: open.number };
    const logExcerpt = await readExcerpt(tx, open.jobId, locked.stream.line, limits);
    const lost = await loseAttempt(tx, locked, open.id, { how, logExcerpt });
    if (!lost) return false;
    await closeAllWindows(tx, locked);
    const what = how === 'LEASE' ? 'The runner was lost' : 'The supervisor was killed';
    const text = `${what} in attempt ${lost.number}; the job is ${locked.job.state}.`;
    await appendLog(tx, locked, lost.number, [{ time: Date.now(), stream: 'SYSTEM', text }]);
    return true;
  });
  return ended ?? false;
}

/** Ends one attempt whose command does not run in time, with a line in the log; false when it runs by now. */
export async function endLate(tx: Tx, late: Attempt): Promise<boolean> {
  const ended = await changeJob(tx, late.jobId, async (locked) => {
    const row = await endLateStart(tx, locked, late.id);
    if (!row) return false;
    const text = `Attempt ${row.number} did not start in time; the job is ${locked.job.state}.`;
    await appendLog(tx, locked, row.number, [{ time: Date.now(), stream: 'SYSTEM', text }]);
    return true;
  });
  return ended ?? false;
}
