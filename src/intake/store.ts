// Writes accepted records to where they belong: lines to the log, points to the metrics, the rest to
// the job, its attempt and its events.
import { type Attempt, markStarted } from '../attempt/attempt.ts';
import { finishAttempt } from '../attempt/end.ts';
import { searchedLines } from '../attempt/outcome.ts';
import { addEvent, type LockedJob } from '../job/job.ts';
import type { Progress } from '../job/table.ts';
import type { Tx } from '../live/commit.ts';
import { appendLog } from '../log/append.ts';
import type { NewGap, NewLine } from '../log/log.ts';
import { readExcerpt } from '../log/read.ts';
import { appendPoints, closeAllWindows, type NewPoint } from '../metric/append.ts';
import { linesCrcAfter, numbersOf, type RecordOf } from '../protocol/record.ts';
import type { Accepted } from './accept.ts';
import { refuseRecord } from './refuse.ts';

/** Progress samples older than this do not count for the speed. */
const minuteMs = 60_000;

/**
 * Stores accepted records in their order. Consecutive log lines and points are collected and
 * written together; a change of state is written where it comes.
 */
export async function storeRecords(
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

/** Progress of a job after a record, with the samples of the last minute for its speed. */
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
