// The spool: every record that a supervisor took from its command, numbered, on disk until the gateway says that it is
// committed. Append-only segment files, flushed every 100 ms; appending never waits, so training never does.
import { type FileHandle, mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { numbersOf, type RunnerRecord } from '../protocol/record.ts';

type Segment = { file: string; first: number; last: number; bytes: number };
type Entry = { number: number; text: string };

const segmentBytes = 1024 * 1024;
const flushMs = 100;
/** Newest entries that are kept in memory as well, so that a gateway that keeps up never makes us read a file. */
const memoryBytes = 2 * 1024 * 1024;

export class Spool {
  readonly #folder: string;
  readonly #segments: Segment[] = [];
  #recent: Entry[] = [];
  #recentBytes = 0;
  #read: { file: string; entries: Entry[] } | undefined;
  #unwritten: { segment: Segment; text: string }[] = [];
  #flushing: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #handle: { file: string; handle: FileHandle } | undefined;
  #last = 0;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** A new, empty spool in this folder. */
  static async create(folder: string): Promise<Spool> {
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true, mode: 0o700 });
    return new Spool(folder);
  }

  /** Number of the last record; 0 for none. */
  get last(): number {
    return this.#last;
  }

  /** Takes a record; it is on disk within 100 ms. */
  append(record: RunnerRecord): void {
    const number = this.#last + 1;
    this.#last += numbersOf(record);
    const text = JSON.stringify(record);
    const line = `${number} ${text}\n`;
    const segment = this.#segmentFor(number, line.length);
    this.#unwritten.push({ segment, text: line });
    this.#recent.push({ number, text });
    this.#recentBytes += text.length;
    if (this.#recentBytes > memoryBytes) this.#forgetOldest();
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#flushing = this.#flushing.then(() => this.#flush());
    }, flushMs);
  }

  /** The records after a number, in order, up to these limits (one at least, when there is one). */
  async read(after: number, maxRecords: number, maxBytes: number): Promise<{ first: number; records: unknown[] }> {
    const first = after + 1;
    const records: unknown[] = [];
    let bytes = 0;
    for (const { text } of await this.#entriesFrom(first)) {
      bytes += text.length;
      if (records.length >= maxRecords || (records.length > 0 && bytes > maxBytes)) break;
      records.push(JSON.parse(text));
    }
    return { first, records };
  }

  /** Everything up to this number is committed: it is needed no more. */
  async release(committed: number): Promise<void> {
    while (this.#recent[0] && this.#recent[0].number <= committed)
      this.#recentBytes -= this.#recent.shift()?.text.length ?? 0;
    while (this.#segments[0] && this.#segments.length > 1 && this.#segments[0].last <= committed) {
      const done = this.#segments.shift();
      if (done) await this.#flushing.then(() => rm(done.file, { force: true }));
    }
  }

  /** Ends the spool and removes its files: everything is committed, or nobody wants it. */
  async remove(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#unwritten = [];
    await this.#flushing;
    await this.#handle?.handle.close();
    this.#handle = undefined;
    await rm(this.#folder, { recursive: true, force: true });
  }

  #segmentFor(number: number, bytes: number): Segment {
    let segment = this.#segments.at(-1);
    if (!segment || segment.bytes + bytes > segmentBytes) {
      const file = join(this.#folder, `${String(number).padStart(16, '0')}.jsonl`);
      segment = { file, first: number, last: number, bytes: 0 };
      this.#segments.push(segment);
    }
    segment.bytes += bytes;
    segment.last = this.#last;
    return segment;
  }

  #forgetOldest(): void {
    const keep = Math.floor(this.#recent.length / 2);
    this.#recent = this.#recent.slice(-keep);
    this.#recentBytes = this.#recent.reduce((sum, { text }) => sum + text.length, 0);
  }

  async #entriesFrom(number: number): Promise<Entry[]> {
    const oldest = this.#recent[0];
    if (!oldest || number > this.#last) return [];
    if (number >= oldest.number) return this.#recent.slice(lowerBound(this.#recent, number));
    const segment = this.#segments.find((candidate) => candidate.last >= number);
    if (!segment) return [];
    await this.#flushing.then(() => this.#flush());
    if (this.#read?.file !== segment.file || (this.#read.entries.at(-1)?.number ?? 0) < number) {
      const lines = (await readFile(segment.file, 'utf8')).split('\n').filter((line) => line !== '');
      const entries = lines.map((line) => {
        const space = line.indexOf(' ');
        return { number: Number(line.slice(0, space)), text: line.slice(space + 1) };
      });
      this.#read = { file: segment.file, entries };
    }
    return this.#read.entries.slice(lowerBound(this.#read.entries, number));
  }

  async #flush(): Promise<void> {
    const batch = this.#unwritten;
    this.#unwritten = [];
    for (const [file, items] of Map.groupBy(batch, ({ segment }) => segment.file)) {
      if (this.#handle?.file !== file) {
        await this.#handle?.handle.close();
        this.#handle = { file, handle: await open(file, 'a', 0o600) };
      }
      await this.#handle.handle.appendFile(items.map(({ text }) => text).join(''));
      await this.#handle.handle.datasync();
    }
  }
}

/** Index of the first entry with this number or a higher one. */
function lowerBound(entries: readonly Entry[], number: number): number {
  let [low, high] = [0, entries.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((entries[middle]?.number ?? 0) < number) low = middle + 1;
    else high = middle;
  }
  return low;
}
