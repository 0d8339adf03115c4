// The spool: every record that a supervisor took from its command, numbered, on disk until the gateway says that it is
// committed. Append-only segment files, flushed every 100 ms; appending never waits, so training never does. While the
// disk takes nothing, records wait in memory, and `failure` says why.
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { numbersOf, type RunnerRecord } from '../protocol/record.ts';

/** `last` counts what was appended, `bytes` what is on disk. */
type Segment = { file: string; last: number; size: number; bytes: number };
type Entry = { number: number; text: string; segment: Segment };
type StoredEntry = Omit<Entry, 'segment'>;

const segmentBytes = 1024 * 1024;
const flushMs = 100;
const retryMs = 1_000;
/** Newest entries that are kept in memory as well, so that a gateway that keeps up never makes us read a file. */
const memoryBytes = 2 * 1024 * 1024;

export class Spool {
  readonly #folder: string;
  readonly #segments: Segment[] = [];
  /** The newest entries, in order: all that are not on disk, and some that are. */
  #recent: Entry[] = [];
  #recentBytes = 0;
  /** Number of the last entry on disk. */
  #written = 0;
  #read: { file: string; entries: StoredEntry[] } | undefined;
  #turn: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #handle: { file: string; handle: FileHandle } | undefined;
  #last = 0;
  #failure: Error | undefined;
  #removed = false;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** A new, empty spool in this folder. */
  static async create(folder: string): Promise<Spool> {
    await rm(folder, { recursive: true, force: true }).catch(() => {}); // the first flush meets, and tells, what is wrong
    return new Spool(folder);
  }

  /** Number of the last record; 0 for none. */
  get last(): number {
    return this.#last;
  }

  /** Why the disk takes nothing at present. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Bytes in memory: a few MiB, and more only while the disk does not keep up. */
  get heldBytes(): number {
    return this.#recentBytes;
  }

  /** Takes a record; it is on disk within 100 ms. */
  append(record: RunnerRecord): void {
    const number = this.#last + 1;
    this.#last += numbersOf(record);
    const text = JSON.stringify(record);
    this.#recent.push({ number, text, segment: this.#segmentFor(number, text.length) });
    this.#recentBytes += text.length;
    if (this.#recentBytes > memoryBytes) this.#forgetOldest();
    this.#flushSoon();
  }

  /** The records after a number, in order, up to these limits (one at least, when there is one). */
  async read(
    after: number,
    maxRecords: number,
    maxBytes: number,
  ): Promise<{ first: number; last: number; records: RunnerRecord[] }> {
    const records: RunnerRecord[] = [];
    let last = after;
    let bytes = 0;
    for (const { text } of await this.#entriesFrom(after + 1)) {
      bytes += Buffer.byteLength(text) + 1;
      if (records.length >= maxRecords || (records.length > 0 && bytes > maxBytes)) break;
      const record = JSON.parse(text) as RunnerRecord;
      records.push(record);
      last += numbersOf(record);
    }
    return { first: after + 1, last, records };
  }

  /** Everything up to this number is committed: it is needed no more, on disk or in memory. */
  async release(committed: number): Promise<void> {
    this.#forget(lowerBound(this.#recent, committed + 1));
    while (this.#segments[0] && this.#segments.length > 1 && this.#segments[0].last <= committed) {
      const file = this.#segments.shift()?.file ?? '';
      await this.#inTurn(async () => {
        if (this.#handle?.file === file) await this.#close();
        await rm(file, { force: true });
      }).catch(() => {}); // what a broken disk keeps goes with the folder, and holds up no record
    }
  }

  /** Ends the spool and removes its files: everything is committed, or nobody wants it. */
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
    if (!segment || segment.size + size > segmentBytes) {
      const file = join(this.#folder, `${String(number).padStart(16, '0')}.jsonl`);
      segment = { file, last: number, size: 0, bytes: 0 };
      this.#segments.push(segment);
    }
    segment.size += size;
    segment.last = this.#last;
    return segment;
  }

  /** Forgets the older half of what is in memory, as far as it is on disk. */
  #forgetOldest(): void {
    let count = 0;
    let left = this.#recentBytes;
    for (const { number, text } of this.#recent) {
      if (left <= memoryBytes / 2 || number > this.#written) break;
      left -= text.length;
      count++;
    }
    this.#forget(count);
  }

  #forget(count: number): void {
    if (count === 0) return;
    for (const { text } of this.#recent.splice(0, count)) this.#recentBytes -= text.length;
  }

  async #entriesFrom(number: number): Promise<StoredEntry[]> {
    const oldest = this.#recent[0];
    if (number > this.#last) return [];
    if (oldest && number >= oldest.number) return this.#recent.slice(lowerBound(this.#recent, number));
    const segment = this.#segments.find((candidate) => candidate.last >= number);
    if (!segment) return [];
    if (this.#read?.file !== segment.file || (this.#read.entries.at(-1)?.number ?? 0) < number) {
      await this.#inTurn(async () => {
        this.#read = { file: segment.file, entries: await readEntries(segment) };
      });
    }
    const { entries } = this.#read ?? { entries: [] };
    return entries.slice(lowerBound(entries, number));
  }

  #flushSoon(): void {
    if (this.#removed) return;
    this.#timer ??= setTimeout(
      () => {
        this.#inTurn(() => this.#flush())
          .then(
            () => void (this.#failure = undefined),
            (error: unknown) => void (this.#failure = error instanceof Error ? error : new Error(String(error))),
          )
          .finally(() => {
            this.#timer = undefined;
            const waits = (this.#recent.at(-1)?.number ?? 0) > this.#written;
            if (waits) this.#flushSoon();
          });
      },
      this.#failure ? retryMs : flushMs,
    );
  }

  /** Writes what is not on disk. What a failed write left behind is written over by the next. */
  async #flush(): Promise<void> {
    const entries = this.#recent.slice(lowerBound(this.#recent, this.#written + 1));
    for (const [segment, items] of Map.groupBy(entries, (entry) => entry.segment)) {
      const handle = await this.#open(segment.file);
      const bytes = Buffer.from(items.map(({ number, text }) => `${number} ${text}\n`).join(''));
      for (let done = 0; done < bytes.length;) {
        done += (await handle.write(bytes, done, bytes.length - done, segment.bytes + done)).bytesWritten;
      }
      await handle.datasync();
      segment.bytes += bytes.length;
      this.#written = items.at(-1)?.number ?? this.#written;
    }
    if (this.#recentBytes > memoryBytes) this.#forgetOldest();
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

  /** One thing at a time happens to the files. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {}); // whoever asked hears of it; the next one goes on
    return done;
  }
}

async function readEntries({ file, bytes }: Segment): Promise<StoredEntry[]> {
  const text = (await readFile(file)).subarray(0, bytes).toString('utf8');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const space = line.indexOf(' ');
      return { number: Number(line.slice(0, space)), text: line.slice(space + 1) };
    });
}

/** Index of the first entry with this number or a higher one. */
function lowerBound(entries: readonly StoredEntry[], number: number): number {
  let [low, high] = [0, entries.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((entries[middle]?.number ?? 0) < number) low = middle + 1;
    else high = middle;
  }
  return low;
}
