// The spool keeps every numbered record of an attempt on disk until the gateway has committed it.
// Segment files are append-only and flushed every 100 ms; appending never waits, so training never
// does. While the disk fails, records wait in memory and `failure` gives the reason. The spool is
// bounded: beyond the bound the oldest unread lines become gaps, one segment at a time. Other
// records are never dropped.
import { numbersOf, type RecordOf, type RunnerRecord } from '../protocol/record.ts';
import { addLines, Segment } from './segment.ts';
import { SegmentFiles } from './segment-files.ts';
import { encodeEntries, type Entry, indexOf, joinGaps, lastOf, loseLines, takeRecords, textOf } from './spool-entry.ts';

type HeldEntry = Entry & { segment: Segment };

/** Default and smallest bound of an attempt's spool, in bytes. */
export const defaultSpoolBytes = 1024 ** 3;
export const leastSpoolBytes = 1024 ** 2;
const largestSegment = 1024 * 1024;
/** Smallest number of segments in a full spool: one to drop, beside those that are being sent and written. */
const fewestSegments = 16;
const flushMs = 100;
const retryMs = 1_000;
/** Newest segments that stay in memory too, so that no file is read while the gateway keeps up. */
const segmentsInMemory = 2;

export class Spool {
  readonly #files: SegmentFiles;
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
  #timer: NodeJS.Timeout | undefined;
  #last = 0;
  /** Totals of segments that were removed. */
  #sums = { lines: 0, linesCrc: 0 };
  #lost = 0;
  #failure: Error | undefined;
  #removed = false;

  private constructor(files: SegmentFiles, maxBytes: number) {
    this.#files = files;
    this.#maxBytes = maxBytes;
    this.#segmentBytes = Math.min(largestSegment, Math.floor(maxBytes / fewestSegments));
    this.#memoryBytes = segmentsInMemory * this.#segmentBytes;
  }

  /**
   * Makes an empty spool in this folder. `maxBytes` bounds its files, as far as dropping lines can.
   */
  static async create(folder: string, maxBytes = defaultSpoolBytes): Promise<Spool> {
    const files = new SegmentFiles(folder);
    // an error here shows again at the first flush, in `failure`
    await files.removeAll().catch(() => {});
    return new Spool(files, maxBytes);
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
    segment.count(record, this.#last, size);
    this.#bytes += size;
    this.#recent.push({ number, text, segment });
    this.#recentBytes += text.length;
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
      // a file that a broken disk keeps is removed with the folder, and delays no record
      await this.#files.inTurn(() => this.#files.remove(oldest.file)).catch(() => {});
    }
  }

  /** Ends the spool and removes its files: everything was committed, or the attempt was abandoned. */
  async remove(): Promise<void> {
    this.#removed = true;
    clearTimeout(this.#timer);
    await this.#files.inTurn(() => this.#files.removeAll());
  }

  /** The segment of the next entry: the newest one, or a new one where the entry does not fit. */
  #segmentFor(number: number, size: number): Segment {
    const newest = this.#segments.at(-1);
    if (newest && newest.size + size <= this.#segmentBytes) return newest;
    const segment = new Segment(this.#files.pathOf(number), number);
    this.#segments.push(segment);
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
    this.#lost += segment.lines;
    this.#bytes -= segment.size;
    segment.cut();
    this.#bytes += segment.size;
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
    await this.#files.inTurn(async () => {
      const segment = this.#segments.find((candidate) => candidate.last >= number);
      const state = segment?.state;
      const entries = (await segment?.read()) ?? [];
      // the segment changed meanwhile: the caller looks again
      if (!segment || segment.state !== state) return;
      this.#read = { file: segment.file, entries };
      if (!this.#entriesInMemory(number)) throw new Error(`The spool has no record ${number}.`);
    });
  }

  #flushSoon(): void {
    if (this.#removed) return;
    this.#timer ??= setTimeout(
      () => {
        this.#files
          .inTurn(() => this.#flush().finally(() => (this.#writing = this.#written)))
          .then(
            () => void (this.#failure = undefined),
            (error: unknown) => void (this.#failure = error instanceof Error ? error : new Error(String(error))),
          )
          .finally(() => {
            this.#timer = undefined;
            const waits = (this.#recent.at(-1)?.number ?? 0) > this.#written;
            if (waits || this.#segments.some((segment) => segment.isToRewrite(this.#written))) this.#flushSoon();
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
    for (const segment of this.#segments.filter((one) => one.isToRewrite(this.#written))) await this.#rewrite(segment);
    const entries = this.#recent.slice(indexOf(this.#recent, this.#written + 1));
    const newest = entries.at(-1);
    if (newest) this.#writing = lastOf(newest);
    for (const [segment, items] of Map.groupBy(entries, (entry) => entry.segment)) {
      const bytes = encodeEntries(items);
      await this.#files.write(segment.file, bytes, segment.bytes);
      segment.bytes += bytes.length;
      const last = items.at(-1);
      if (last) this.#written = lastOf(last);
    }
    if (this.#recentBytes > this.#memoryBytes) this.#forgetOldest();
  }

  /**
   * Writes a segment anew without its lines, once it is whole on disk. While both are small it is
   * appended to the rewritten segment before it.
   */
  async #rewrite(segment: Segment): Promise<void> {
    const index = this.#segments.indexOf(segment);
    if (index < 0) return; // the segment was released meanwhile
    const before = this.#segments[index - 1];
    const joins = before?.state === 'rewritten' && before.bytes + segment.size <= this.#segmentBytes;
    const target = joins ? before : segment;
    this.#busy = [target, segment]; // `release` leaves these segments alone
    try {
      const earlier = joins ? await target.read() : [];
      const bytes = encodeEntries(joinGaps([...earlier, ...(await segment.read())]));
      await this.#files.replace(target.file, bytes);
      this.#read = undefined;
      this.#bytes += bytes.length - target.size - (joins ? segment.size : 0);
      Object.assign(target, { size: bytes.length, bytes: bytes.length, last: segment.last, state: 'rewritten' });
      if (!joins) return;
      this.#segments.splice(this.#segments.indexOf(segment), 1);
      await this.#files.remove(segment.file);
    } finally {
      this.#busy = [];
    }
  }
}

function sizeOf(entries: readonly Entry[]): number {
  return entries.reduce((sum, { text }) => sum + text.length, 0);
}
