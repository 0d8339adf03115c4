// Picks from a batch the records that come next in their attempt: duplicates are dropped, and what
// follows a hole waits until the runner has sent what is missing.
import type { Attempt } from '../attempt/attempt.ts';
import { type DecodedBatch, numbersOf, parseRecord, type RunnerRecord } from '../protocol/record.ts';
import type { IntakeCounts } from './counts.ts';

/** A record of unknown shape, e.g. of a newer runner. It is kept as a refused record. */
type UnreadableRecord = { type: 'unreadable'; time: number; value: unknown };

/**
 * Records to store. `first` is the number of the first. `json` is their text for followers; null
 * when followers must read the database.
 */
export type Accepted = { first: number; records: (RunnerRecord | UnreadableRecord)[]; json: string | Buffer | null };

/**
 * Picks the records of a batch that continue the attempt's stream, and moves its mark behind them.
 */
export function acceptNext(attempt: Attempt, batch: DecodedBatch, counts: IntakeCounts): Accepted {
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
 * Count of numbers that a record takes: a gap takes one for each missing record, any other record
 * one, an unreadable one too.
 */
export function lengthOf(value: unknown): number {
  const record = parseRecord(value);
  return record ? numbersOf(record) : 1;
}
