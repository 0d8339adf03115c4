// The spool keeps every numbered record of an attempt on disk until the gateway has committed it. Segment files are
// append-only and flushed every 100 ms; appending never waits, so training never does. While the disk fails, records wait
// in memory and `failure` gives the reason. The spool is bounded: beyond the bound the oldest unread lines become gaps, one
// segment at a time. Other records are never dropped.
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { nextLinesCrc, numbersOf, type RecordOf, type RunnerRecord } from '../protocol/record.ts';
import {
  decodeEntries,
  encodeEntries,
  type Entry,
  indexOf,
  isLosable,
  joinCrc,
  joinGaps,
  lastOf,
  loseLines,
  takeRecords,
  textOf,
} from './spool-entry.ts';

type Segment = {
  readonly file: string;
  readonly first: number;
  last: number;
  /**
   * Bytes: `size` of all its entries, `bytes` of those on disk, `kept` of those that must not be
   * dropped.
   */
  size: number;
  bytes: number;
  kept: number;
  /** Number, bytes and checksum of the command's lines in this segment. */
  lines: number;
  lineBytes: number;
  linesCrc: number;
  /** `cut`: its lines were dropped, but still stand on disk. `rewritten`: they do not any more. */
  state: 'whole' | 'cut' | 'rewritten';
};
type HeldEntry = Entry & { segment: Segment };

/** Default and smallest bound of an attempt's spool, in bytes. */
export const defaultSpoolBytes = 1024 ** 3;
export const leastSpoolBytes = 1024 ** 2;
const largestSegment = 1024 * 1024;
/** Smallest number of segments in a full spool: one to drop, beside those that are being sent and written. */
const fewestSegments = 16;
/** Upper bound of one gap entry on disk, in bytes: two sequence numbers and the line number. */
const gapBytes = 48;
const flushMs = 100;
const retryMs = 1_000;
/** Newest segments that stay in memory too, so that no file is read while the gateway keeps up. */
const segmentsInMemory = 2;

export class Spool {
  readonly #folder: string;
  readonly #maxBytes: number;
  readonly #segmentBytes: number;
  readonly #memoryBytes: number;
  readonly #segments: Segment[] = [];
  /** Bytes of all segments. */
  #bytes = 0;
  /** The newest segment when the bound was last checked. */
  #checked: Segment | undefined;
  /** Newest entries, in order: every entry that is not on disk, and some that are. */
  #recent: HeldEntry[] = [];
  #recentBytes = 0;
  /** Number of the last record that was read. Records up to it may be in flight, so they are never replaced by gaps. */
  #sent = 0;
  /** Number of the last record on disk, and of the last one that is being written. */
  #written = 0;
  #writing = 0;
  /** The segment that was last read from disk. */
  #read: { file: string; entries: Entry[] } | undefined;
  /** Segments whose files are being changed. */
  #busy: readonly Segment[] = [];
  /** Resolves when all changes of files that were begun have ended. */
  #turn: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #handle: { file: string; handle: FileHandle } | undefined;
  #last = 0;
  /** Totals of segments that were removed. */
  #sums = { lines: 0, linesCrc: 0 };
  #lost = 0;
  #failure: Error | undefined;
  #removed = false;

  private constructor(folder: string, maxBytes: number) {
    this.#folder = folder;
    this.#maxBytes = maxBytes;
    this.#segmentBytes = Math.min(largestSegment, Math.floor(maxBytes / fewestSegments));
    this.#memoryBytes = segmentsInMemory * this.#segmentBytes;
  }

  /**
   * Makes an empty spool in this folder. `maxBytes` bounds its files, as far as dropping lines can.
   */
  static async create(folder: string, maxBytes = defaultSpoolBytes): Promise<Spool> {
    // an error here shows again at the first flush, in `failure`
    await rm(folder, { recursive: true, force: true }).catch(() => {});
    return new Spool(folder, maxBytes);
  }

  /** Number of the last record; 0 when there is none. */
  get last(): number {
    return this.#last;
  }

  /** The reason why the disk cannot be written at present; undefined while it can. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Bytes in memory: a few MiB, more only while the disk is slower than the command. */
  get heldBytes(): number {
    return this.#recentBytes;
  }

  /** Number of dropped lines. */
  get lostLines(): number {
    return this.#lost;
  }

  /** Number and checksum of the command's lines that were not dropped: those that the gateway stores. */
  sumLines(): Pick<RecordOf<'finished'>, 'lines' | 'linesCrc'> {
    return this.#segments.reduce(addLines, this.#sums);
  }

  /** Appends a record. It is on disk within 100 ms. */
  append(record: RunnerRecord): void {
    const number = this.#last + 1;
    this.#last += numbersOf(record);
    const text = textOf(record);
    // the bytes that `encodeEntries` makes of it
    const size = String(number).length + Buffer.byteLength(text) + 2;
    const segment = this.#segmentFor(number, size);
    this.#recent.push({ number, text, segment });
    this.#recentBytes += text.length;
    if (isLosable(record)) {
      segment.lines++;
      segment.lineBytes += Buffer.byteLength(record.text) + 1;
      segment.linesCrc = nextLinesCrc(segment.linesCrc, record.text);
      segment.kept += gapBytes;
    } else segment.kept += size;
    // `finished` holds the number of lines, so none may be dropped after it
    if (record.type !== 'finished') this.#makeRoom(segment);
    if (this.#recentBytes > this.#memoryBytes) this.#forgetOldest();
    this.#flushSoon();
  }

  /**
   * Returns the records after a number, in order, up to these limits, but at least one when there
   * is one. Records that were read are never dropped: a second read gives the same, or more.
   */
  async read(
    after: number,
    maxRecords: number,
    maxBytes: number,
  ): Promise<{ first: number; last: number; records: RunnerRecord[] }> {
    let entries = this.#entriesInMemory(after + 1);
    while (!entries) {
      await this.#load(after + 1);
      entries = this.#entriesInMemory(after + 1);
    }
    // Between finding the entries and setting `#sent` there is no await, so no line can be dropped
    // meanwhile.
    const { last, records } = takeRecords(entries, after + 1, { maxRecords, maxBytes });
    this.#sent = Math.max(this.#sent, last);
    return { first: after + 1, last, records };
  }

  /** Releases everything up to this number, which the gateway has committed. */
  async release(committed: number): Promise<void> {
    this.#forget(indexOf(this.#recent, committed + 1));
    for (;;) {
      const [oldest] = this.#segments;
      if (!oldest || this.#segments.length === 1 || oldest.last > committed || this.#busy.includes(oldest)) return;
      this.#segments.shift();
      this.#bytes -= oldest.size;
      this.#sums = addLines(this.#sums, oldest);
      await this.#inTurn(async () => {
        if (this.#handle?.file === oldest.file) await this.#close();
        await rm(oldest.file, { force: true });
        // a file that a broken disk keeps is removed with the folder, and delays no record
      }).catch(() => {});
    }
  }

  /** Ends the spool and removes its files: everything was committed, or the attempt was abandoned. */
  async remove(): Promise<void> {
    this.#removed = true;
    clearTimeout(this.#timer);
    await this.#inTurn(async () => {
      await this.#close();
      await rm(this.#folder, { recursive: true, force: true });
    });
  }

  #segmentFor(number: number, size: number): Segment {
    let segment = this.#segments.at(-1);
    if (!segment || segment.size + size > this.#segmentBytes) {
      const file = join(this.#folder, `${String(number).padStart(16, '0')}.jsonl`);
      const sums = { lines: 0, lineBytes: 0, linesCrc: 0 };
      segment = { file, first: number, last: number, size: 0, bytes: 0, kept: 0, ...sums, state: 'whole' };
      this.#segments.push(segment);
    }
    segment.size += size;
    segment.last = this.#last;
    this.#bytes += size;
    return segment;
  }

  /**
   * Called once for each new segment. Beyond the bound it drops the lines of the oldest segments,
   * except those that are being sent or filled.
   */
  #makeRoom(newest: Segment): void {
    if (this.#checked === newest) return;
    this.#checked = newest;
    for (const segment of this.#segments) {
      if (this.#bytes + this.#segmentBytes <= this.#maxBytes) return;
      if (segment !== newest && segment.lines > 0 && segment.first > this.#sent) this.#cut(segment);
    }
  }

  /** Replaces the lines of a segment by gaps: in memory at once, on disk with the next flush. */
  #cut(segment: Segment): void {
    const kept = Math.min(segment.kept, segment.size);
    this.#bytes -= segment.size - kept;
    this.#lost += segment.lines;
    Object.assign(segment, { size: kept, lines: 0, lineBytes: 0, linesCrc: 0, state: 'cut' });
    if (this.#read?.file === segment.file) this.#read = undefined;
    const [from, to] = [indexOf(this.#recent, segment.first), indexOf(this.#recent, segment.last + 1)];
    const before = this.#recent.slice(from, to);
    // Entries that are on disk or being written keep their numbers, so each becomes a gap of its own.
    const isUnwritten = segment.first > Math.max(this.#written, this.#writing);
    const after = isUnwritten ? joinGaps(loseLines(before)) : loseLines(before);
    this.#recent = [...this.#recent.slice(0, from), ...after, ...this.#recent.slice(to)];
    this.#recentBytes += sizeOf(after) - sizeOf(before);
  }

  /** Drops the older half of the entries in memory, as far as they are on disk. */
  #forgetOldest(): void {
    let count = 0;
    let remaining = this.#recentBytes;
    for (const { number, text } of this.#recent) {
      if (remaining <= this.#memoryBytes / 2 || number > this.#written) break;
      remaining -= text.length;
      count++;
    }
    this.#forget(count);
  }

  #forget(count: number): void {
    if (count > 0) this.#recentBytes -= sizeOf(this.#recent.splice(0, count));
  }

  /** Entries from this number on that are in memory; null when they are only on disk. */
  #entriesInMemory(number: number): readonly Entry[] | null {
    if (number > this.#last) return [];
    const oldest = this.#recent[0];
    if (oldest && oldest.number <= number) return this.#recent;
    const [first, last] = [this.#read?.entries[0], this.#read?.entries.at(-1)];
    return first && last && first.number <= number && lastOf(last) >= number ? (this.#read?.entries ?? []) : null;
  }

  async #load(number: number): Promise<void> {
    await this.#inTurn(async () => {
      const segment = this.#segments.find((candidate) => candidate.last >= number);
      const state = segment?.state;
      const entries = segment ? await readEntries(segment) : [];
      // the segment changed meanwhile: the caller looks again
      if (!segment || segment.state !== state) return;
      this.#read = { file: segment.file, entries: asCut(segment, entries) };
      if (!this.#entriesInMemory(number)) throw new Error(`The spool has no record ${number}.`);
    });
  }

  #flushSoon(): void {
    if (this.#removed) return;
    this.#timer ??= setTimeout(
      () => {
        this.#inTurn(() => this.#flush().finally(() => (this.#writing = this.#written)))
          .then(
            () => void (this.#failure = undefined),
            (error: unknown) => void (this.#failure = error instanceof Error ? error : new Error(String(error))),
          )
          .finally(() => {
            this.#timer = undefined;
            const waits = (this.#recent.at(-1)?.number ?? 0) > this.#written;
            if (waits || this.#segments.some((segment) => this.#isToRewrite(segment))) this.#flushSoon();
          });
      },
      this.#failure ? retryMs : flushMs,
    );
  }

  /**
   * Writes the entries that are not on disk. After a failed write, the next one overwrites its
   * remains.
   */
  async #flush(): Promise<void> {
    for (const segment of this.#segments.filter((one) => this.#isToRewrite(one))) await this.#rewrite(segment);
    const entries = this.#recent.slice(indexOf(this.#recent, this.#written + 1));
    const newest = entries.at(-1);
    if (newest) this.#writing = lastOf(newest);
    for (const [segment, items] of Map.groupBy(entries, (entry) => entry.segment)) {
      const handle = await this.#open(segment.file);
      const bytes = encodeEntries(items);
      for (let done = 0; done < bytes.length;) {
        done += (await handle.write(bytes, done, bytes.length - done, segment.bytes + done)).bytesWritten;
      }
      await handle.datasync();
      segment.bytes += bytes.length;
      const last = items.at(-1);
      if (last) this.#written = lastOf(last);
    }
    if (this.#recentBytes > this.#memoryBytes) this.#forgetOldest();
  }

  #isToRewrite({ state, last }: Segment): boolean {
    return state === 'cut' && last <= this.#written;
  }

  /**
   * Writes a segment anew without its lines, once it is whole on disk. While both are small it is
   * appended to the rewritten segment before it. A file is replaced as a whole or not at all.
   */
  async #rewrite(segment: Segment): Promise<void> {
    const index = this.#segments.indexOf(segment);
    if (index < 0) return; // the segment was released meanwhile
    const before = this.#segments[index - 1];
    const joins = before?.state === 'rewritten' && before.bytes + segment.size <= this.#segmentBytes;
    const target = joins ? before : segment;
    this.#busy = [target, segment]; // `release` leaves these segments alone
    try {
      const earlier = joins ? await readEntries(target) : [];
      const bytes = encodeEntries(joinGaps([...earlier, ...asCut(segment, await readEntries(segment))]));
      if (this.#handle?.file === segment.file) await this.#close();
      await writeFile(`${target.file}.new`, bytes, { mode: 0o600, flush: true });
      await rename(`${target.file}.new`, target.file);
      this.#read = undefined;
      this.#bytes += bytes.length - target.size - (joins ? segment.size : 0);
      Object.assign(target, { size: bytes.length, bytes: bytes.length, last: segment.last, state: 'rewritten' });
      if (!joins) return;
      this.#segments.splice(this.#segments.indexOf(segment), 1);
      await rm(segment.file, { force: true });
    } finally {
      this.#busy = [];
    }
  }

  async #open(file: string): Promise<FileHandle> {
    if (this.#handle?.file === file) return this.#handle.handle;
    await this.#close();
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    this.#handle = { file, handle: await open(file, constants.O_WRONLY | constants.O_CREAT, 0o600) };
    return this.#handle.handle;
  }

  async #close(): Promise<void> {
    const opened = this.#handle;
    this.#handle = undefined;
    await opened?.handle.close();
  }

  /** Runs changes of the files one after the other. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {}); // the caller gets the error, and the next change goes on
    return done;
  }
}

async function readEntries({ file, bytes }: Segment): Promise<Entry[]> {
  return decodeEntries((await readFile(file)).subarray(0, bytes));
}

function asCut({ state }: Segment, entries: Entry[]): Entry[] {
  return state === 'cut' ? joinGaps(loseLines(entries)) : entries;
}

function sizeOf(entries: readonly Entry[]): number {
  return entries.reduce((sum, { text }) => sum + text.length, 0);
}

function addLines(
  sums: { lines: number; linesCrc: number },
  { lines, lineBytes, linesCrc }: Segment,
): { lines: number; linesCrc: number } {
  return { lines: sums.lines + lines, linesCrc: joinCrc(sums.linesCrc, linesCrc, lineBytes) };
}
