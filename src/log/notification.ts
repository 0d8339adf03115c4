// New lines from a notification: followers of a log get them without a query of the database.
import type { RunnerRecord } from '../protocol/record.ts';
import type { LogReading } from './read.ts';

/**
 * The records of one attempt in a notification. `first` is the record number of the first of them,
 * `seq` the log number of its first line.
 */
export type NotifiedRecords = { attempt: number; first: number; seq: number; records: readonly RunnerRecord[] };

/**
 * Returns the lines from `after` to `head` out of the records of a notification; null unless the
 * records hold all of them without a hole.
 */
export function linesOfNotification(
  reported: readonly object[],
  options: { after: number; head: number },
): LogReading | null {
  const reading: LogReading = { lines: [], gaps: [], position: options.after, more: false };
  for (const { attempt, seq: first, records } of reported as readonly NotifiedRecords[]) {
    if (first !== reading.position + 1) return null;
    for (const record of records) {
      const seq = reading.position + 1;
      if (record.type === 'line') {
        const { time, stream, text, truncated = false } = record;
        reading.lines.push({ seq, time, stream, text, attempt, truncated });
        reading.position = seq;
      } else if (record.type === 'gap') {
        reading.position += record.lines;
        reading.gaps.push({ fromSeq: seq, toSeq: reading.position, reason: record.reason });
      }
    }
  }
  return reading.position === options.head && options.head > options.after ? reading : null;
}
