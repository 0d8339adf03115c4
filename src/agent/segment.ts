// A segment of a spool: the entries of one file, and what they count. Lines that it drops are gaps
// at once when it is read, and on disk once its file is replaced.
import { readFile } from 'node:fs/promises';
import { nextLinesCrc, type RunnerRecord } from '../protocol/record.ts';
import { decodeEntries, type Entry, isLosable, joinCrc, joinGaps, loseLines } from './spool-entry.ts';

/** Upper bound of one gap entry on disk, in bytes: two sequence numbers and the line number. */
const gapBytes = 48;

export class Segment {
  readonly file: string;
  readonly first: number;
  last: number;
  /**
   * Bytes: `size` of all its entries, `bytes` of those on disk, `#kept` of those that must not be
   * dropped.
   */
  size = 0;
  bytes = 0;
  #kept = 0;
  /** Number, bytes and checksum of the command's lines in this segment. */
  lines = 0;
  lineBytes = 0;
  linesCrc = 0;
  /** `cut`: its lines were dropped, but still stand on disk. `rewritten`: they do not any more. */
  state: 'whole' | 'cut' | 'rewritten' = 'whole';

  constructor(file: string, first: number) {
    this.file = file;
    this.first = first;
    this.last = first;
  }

  /** Counts a record that was appended: its last number, and its size on disk. */
  count(record: RunnerRecord, last: number, size: number): void {
    this.last = last;
    this.size += size;
    this.#kept += isLosable(record) ? gapBytes : size;
    if (!isLosable(record)) return;
    this.lines++;
    this.lineBytes += Buffer.byteLength(record.text) + 1;
    this.linesCrc = nextLinesCrc(this.linesCrc, record.text);
  }

  /** Drops its lines. */
  cut(): void {
    this.size = Math.min(this.#kept, this.size);
    this.lines = this.lineBytes = this.linesCrc = 0;
    this.state = 'cut';
  }

  /**
   * Whether its file has dropped lines and grows no more. `written` is the number of the last record
   * on disk.
   */
  isToRewrite(written: number): boolean {
    return this.state === 'cut' && this.last <= written;
  }

  /** Reads the entries on disk. */
  async read(): Promise<Entry[]> {
    const { file, bytes } = this;
    const entries = decodeEntries((await readFile(file)).subarray(0, bytes));
    return this.state === 'cut' ? joinGaps(loseLines(entries)) : entries;
  }
}

/** Adds the lines of a segment to those of the segments before it. */
export function addLines(
  sums: { lines: number; linesCrc: number },
  { lines, lineBytes, linesCrc }: Segment,
): { lines: number; linesCrc: number } {
  return { lines: sums.lines + lines, linesCrc: joinCrc(sums.linesCrc, linesCrc, lineBytes) };
}
