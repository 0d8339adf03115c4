// Entries of the spool: records as text, with their numbers. Dropped lines become a gap, which is
// short, can be joined with neighbouring gaps, and can be read from its middle.
import { crc32 } from 'node:zlib';
import { numbersOf, type RecordOf, type RunnerRecord } from '../protocol/record.ts';

export type Entry = { number: number; text: string };

export function textOf(record: RunnerRecord): string {
  return JSON.stringify(record.type === 'gap' ? [record.lines, record.time] : record);
}

export function recordOf(text: string): RunnerRecord {
  if (!isGap(text)) return JSON.parse(text) as RunnerRecord;
  const [lines, time] = JSON.parse(text) as [number, number];
  return { type: 'gap', time, lines, reason: 'SPOOL_OVERFLOW' };
}

/** The last number that an entry takes: a gap takes several. */
export function lastOf({ number, text }: Entry): number {
  return isGap(text) ? number + numbersOf(recordOf(text)) - 1 : number;
}

function isGap(text: string): boolean {
  return text.startsWith('[');
}

/**
 * Whether a record may be dropped when the spool is full: only lines of the command may, not those
 * of SYSTEM.
 */
export function isLosable(record: RunnerRecord): record is RecordOf<'line'> {
  return record.type === 'line' && record.stream !== 'SYSTEM';
}

/** Replaces each line of the command by a gap with the same number. */
export function loseLines<One extends Entry>(entries: readonly One[]): One[] {
  return entries.map((entry) => {
    const record = recordOf(entry.text);
    return isLosable(record) ? { ...entry, text: textOf({ ...gapFrom(record.time), lines: 1 }) } : entry;
  });
}

/** Joins neighbouring gaps into one, which has the time of the first. The numbers stay the same. */
export function joinGaps<One extends Entry>(entries: readonly One[]): One[] {
  const joined: One[] = [];
  for (const entry of entries) {
    const before = joined.at(-1);
    if (!before || !isGap(before.text) || !isGap(entry.text)) joined.push(entry);
    else {
      const lines = lastOf(entry) - before.number + 1;
      joined[joined.length - 1] = { ...before, text: textOf({ ...gapFrom(recordOf(before.text).time), lines }) };
    }
  }
  return joined;
}

function gapFrom(time: number) {
  return { type: 'gap', time, reason: 'SPOOL_OVERFLOW' } as const;
}

/**
 * Takes records for a batch, from the number `from` on, up to these limits, but at least one.
 * Neighbouring gaps become one.
 */
export function takeRecords(
  entries: readonly Entry[],
  from: number,
  { maxRecords, maxBytes }: { maxRecords: number; maxBytes: number },
): { last: number; records: RunnerRecord[] } {
  const records: RunnerRecord[] = [];
  let last = from - 1;
  let bytes = 0;
  for (let index = indexOf(entries, from); index < entries.length; index++) {
    const entry = entries[index];
    if (!entry) break;
    const record = recordOf(entry.text);
    const before = records.at(-1);
    // the part before `from` was taken earlier
    if (record.type === 'gap') record.lines = lastOf(entry) - last;
    if (record.type === 'gap' && before?.type === 'gap') before.lines += record.lines;
    else {
      bytes += Buffer.byteLength(entry.text) + 1;
      if (records.length >= maxRecords || (records.length > 0 && bytes > maxBytes)) break;
      records.push(record);
    }
    last += numbersOf(record);
  }
  return { last, records };
}

/**
 * Index of the entry that takes this number (binary search; entries have no holes). Their count
 * when the number is above all.
 */
export function indexOf(entries: readonly Entry[], number: number): number {
  let [low, high] = [0, entries.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const entry = entries[middle];
    if (entry && lastOf(entry) < number) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Encodes entries, one a line: the number, a space, the text. */
export function encodeEntries(entries: readonly Entry[]): Buffer {
  return Buffer.from(entries.map(({ number, text }) => `${number} ${text}\n`).join(''));
}

/**
 * Decodes the entries of a file. Text behind the last line feed is a half-written entry, and is
 * ignored.
 */
export function decodeEntries(bytes: Buffer): Entry[] {
  const lines = bytes.toString('utf8').split('\n').slice(0, -1);
  return lines.map((line) => {
    const space = line.indexOf(' ');
    return { number: Number(line.slice(0, space)), text: line.slice(space + 1) };
  });
}

/**
 * Joins checksums: returns the CRC-32 of two texts one after the other, given the CRC-32 of each
 * and the length of the second in bytes.
 */
export function joinCrc(first: number, second: number, secondBytes: number): number {
  const zeros = Buffer.alloc(secondBytes);
  return (crc32(zeros, first) ^ crc32(zeros) ^ second) >>> 0;
}
