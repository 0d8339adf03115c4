// Reading a log on from any number in either direction, within bytes and time, and what a notification tells of new lines.
import { stripVTControlCharacters } from 'node:util';
import { and, asc, desc, eq, gt, lt, lte } from 'drizzle-orm';
import { unpackBytes } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import type { RunnerRecord } from '../protocol/record.ts';
import { giveWay } from '../turns.ts';
import { inChunk, isFiltered, type LogFilter, matcher } from './filter.ts';
import { type Entry, firstKept, type LogLine, logStreams, type StreamGap } from './log.ts';
import { logChunk } from './table.ts';

export type LogReading = {
  lines: LogLine[];
  gaps: StreamGap[];
  /** Number up to which (or down to which) the log was read; with a filter it may be far from the last line. */
  position: number;
  /** Whether there is more to read in this direction. */
  more: boolean;
};

/** A chunk may hold a thousand lines or one: a read begins with few, and takes twice as many each time it needs more. */
const [fewChunks, chunksPerQuery] = [2, 32];

/** Bytes of lines that one query should bring at most. */
const bytesPerQuery = 2 * 1024 * 1024;

/** Chunks that one call looks at: a filter that matches little must not keep a connection for long. */
const chunksPerRead = 1_024;

/** Bytes of lines that one call with a filter looks through, about. The cost of a search in `schema.ts` is that of these. */
export const bytesPerSearch = 8 * 1024 * 1024;

/** Chunks beyond this size are opened in turns with other long work. */
const largeChunk = 16 * 1024;

/** What a line takes beside its text. */
export const lineBytes = 100;

/** What a read may take of the process. */
export type ReadLimits = {
  maxLines: number;
  /** Characters of text after which a page ends; it holds one line at least. */
  maxBytes: number;
  /** Is told the bytes of the lines before more of them are read; what it throws ends the read. */
  takeRows?: ((bytes: number) => Promise<void>) | undefined;
  /** Ends a read whose operation is over. */
  signal?: AbortSignal | undefined;
  /** Milliseconds after which a read with a filter ends where it is. */
  searchMs?: number;
};

/** Follows one read: when others have their turn, and when a filter has looked through enough. */
function watch({ takeRows, signal, searchMs = Infinity }: ReadLimits, filtered: boolean) {
  const beganAt = performance.now();
  let [opened, seen, taken] = [0, 0, 0];
  return {
    /** Before a chunk is opened. */
    async open(size: number): Promise<void> {
      signal?.throwIfAborted();
      const turn = filtered || size > largeChunk ? giveWay() : undefined;
      if (turn) await turn;
      signal?.throwIfAborted();
      opened++;
      seen += size;
    },
    take: async (bytes: number) => {
      const more = bytes - taken;
      taken = bytes;
      if (more > 0) await takeRows?.(more);
    },
    /** Not before one chunk was opened: however late it is, a page goes on. */
    hasEnough: () => filtered && opened > 0 && (seen >= bytesPerSearch || performance.now() - beganAt >= searchMs),
  };
}

/** How many chunks the next query takes: twice as many as the last one, but no more bytes than one should bring. */
function nextTake(take: number, chunks: readonly { size: number }[]): number {
  const mean = chunks.reduce((sum, { size }) => sum + size, 1) / Math.max(1, chunks.length);
  return Math.max(1, Math.min(2 * take, chunksPerQuery, Math.floor(bytesPerQuery / mean)));
}

/**
 * Lines with numbers above `after`, in order, up to `maxLines` or about `maxBytes` of text (one line at least). `head`
 * is the last number of the log when the caller looked. With a filter it may end before, at its `position`.
 */
export async function readLog(
  db: Db,
  jobId: string,
  options: ReadLimits & { after: number; head: number; filter?: LogFilter },
): Promise<LogReading> {
  const { head, maxLines, maxBytes, filter = {} } = options;
  const reading: LogReading = { lines: [], gaps: [], position: options.after, more: false };
  const matches = matcher(filter);
  let size = 0;
  const filtered = isFiltered(filter);
  if (filtered) await skipPruned(db, jobId, head, reading);
  const watched = watch(options, filtered);
  let bytes = 0;
  let take = fewChunks;
  for (let seen = 0; reading.position < head && seen < chunksPerRead; seen += take) {
    const chunks = await chunksAfter(db, jobId, reading.position, head, filter).limit(take);
    for (const chunk of chunks) {
      if (watched.hasEnough()) return { ...reading, more: true };
      await watched.open(chunk.size);
      // Without a filter, numbers that no chunk holds are lines that were removed.
      if (!filtered && chunk.first > reading.position + 1) {
        const reason = (await isPruned(db, jobId, chunk.first)) ? 'RETENTION' : 'LOG_LIMIT';
        reading.gaps.push({ fromSeq: reading.position + 1, toSeq: chunk.first - 1, reason });
      }
      for (const item of itemsOf(chunk)) {
        const last = 'toSeq' in item ? item.toSeq : item.seq;
        if (last <= reading.position) continue;
        if (reading.lines.length >= maxLines || size >= maxBytes) {
          await watched.take(bytes);
          return { ...reading, more: true };
        }
        reading.position = last;
        if ('toSeq' in item) reading.gaps.push(item);
        else if (matches(item)) {
          reading.lines.push(item);
          size += item.text.length;
          bytes += bytesOf(item);
        }
      }
      await watched.take(bytes);
    }
    if (chunks.length < take) {
      // The limit leaves the tail: only retention removes the last lines.
      if (!filtered && reading.position < head) {
        reading.gaps.push({ fromSeq: reading.position + 1, toSeq: head, reason: 'RETENTION' });
      }
      return { ...reading, position: Math.max(reading.position, head), more: false };
    }
    take = nextTake(take, chunks);
  }
  return { ...reading, more: reading.position < head };
}

function chunksAfter(db: Db, jobId: string, position: number, head: number, filter: LogFilter) {
  return db
    .select()
    .from(logChunk)
    .where(and(eq(logChunk.jobId, jobId), gt(logChunk.last, position), lte(logChunk.first, head), ...inChunk(filter)))
    .orderBy(asc(logChunk.last));
}

function bytesOf({ text }: LogLine): number {
  return Buffer.byteLength(text) + lineBytes;
}

/** What a notification tells of an attempt's stored records: the numbers of the first of them, and of the first line, in the log. */
export type ToldRecords = { attempt: number; first: number; seq: number; records: readonly RunnerRecord[] };

/** What a notification's records say of the lines from `after` to `head`; null unless it is all of them, one after the other. */
export function linesOfNotification(
  reported: readonly object[],
  options: { after: number; head: number },
): LogReading | null {
  const reading: LogReading = { lines: [], gaps: [], position: options.after, more: false };
  for (const { attempt, seq: first, records } of reported as readonly ToldRecords[]) {
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

/** Whether what is missing before a chunk was past retention, which removes a log from its head on; the limit never does. */
async function isPruned(db: Db, jobId: string, chunkFirst: number): Promise<boolean> {
  return (await firstKept(db, jobId)) === chunkFirst;
}

/** A filter cannot say which of the lines that are gone it would have matched: the whole of them is a gap. */
async function skipPruned(db: Db, jobId: string, head: number, reading: LogReading): Promise<void> {
  const last = Math.min(head, ((await firstKept(db, jobId)) ?? head + 1) - 1);
  if (last <= reading.position) return;
  reading.gaps.push({ fromSeq: reading.position + 1, toSeq: last, reason: 'RETENTION' });
  reading.position = last;
}

/** Lines with numbers below `before`, in order: the last `maxLines` of them, within the same limits as forward. */
export async function readLogBackward(
  db: Db,
  jobId: string,
  options: ReadLimits & { before: number; filter?: LogFilter },
): Promise<LogReading> {
  const { maxLines, maxBytes, filter = {} } = options;
  const reading: LogReading = { lines: [], gaps: [], position: options.before, more: false };
  const matches = matcher(filter);
  const watched = watch(options, isFiltered(filter));
  let [size, bytes] = [0, 0];
  let take = fewChunks;
  const isFull = () => reading.lines.length >= maxLines || size >= maxBytes;
  for (let seen = 0; seen < chunksPerRead; seen += take) {
    const chunks = await db
      .select()
      .from(logChunk)
      .where(and(eq(logChunk.jobId, jobId), lt(logChunk.first, reading.position), ...inChunk(filter)))
      .orderBy(desc(logChunk.first))
      .limit(take);
    for (const chunk of chunks) {
      if (watched.hasEnough()) return inOrder({ ...reading, more: true });
      await watched.open(chunk.size);
      if (!isFiltered(filter) && chunk.last < reading.position - 1) {
        if (isFull()) return inOrder({ ...reading, more: true });
        reading.gaps.push({ fromSeq: chunk.last + 1, toSeq: reading.position - 1, reason: 'LOG_LIMIT' });
        reading.position = chunk.last + 1;
      }
      for (const item of itemsOf(chunk).reverse()) {
        const first = 'toSeq' in item ? item.fromSeq : item.seq;
        if (first >= reading.position) continue;
        if (isFull()) {
          await watched.take(bytes);
          return inOrder({ ...reading, more: true });
        }
        reading.position = first;
        if ('toSeq' in item) reading.gaps.push(item);
        else if (matches(item)) {
          reading.lines.push(item);
          size += item.text.length;
          bytes += bytesOf(item);
        }
      }
      await watched.take(bytes);
    }
    if (chunks.length < take) return inOrder(await endOfBackward(db, jobId, reading, isFull(), filter));
    take = nextTake(take, chunks);
  }
  return inOrder({ ...reading, more: true });
}

/** The head of the log, when it is past retention, is a gap of its own; a full page leaves it to the next one. */
async function endOfBackward(
  db: Db,
  jobId: string,
  reading: LogReading,
  full: boolean,
  filter: LogFilter,
): Promise<LogReading> {
  const first = isFiltered(filter) ? ((await firstKept(db, jobId)) ?? reading.position) : reading.position;
  const toSeq = Math.min(first, reading.position) - 1;
  if (toSeq < 1) return reading;
  if (full) return { ...reading, more: true };
  reading.gaps.push({ fromSeq: 1, toSeq, reason: 'RETENTION' });
  return { ...reading, position: 1 };
}

function inOrder(reading: LogReading): LogReading {
  return { ...reading, lines: reading.lines.reverse(), gaps: reading.gaps.reverse() };
}

/** The last lines of an attempt, without escape sequences: what a person wants to see of a failure. */
export async function readExcerpt(
  db: Db,
  jobId: string,
  head: number,
  { maxLines, attempt }: { maxLines: number; attempt: number },
): Promise<string[]> {
  const { lines } = await readLogBackward(db, jobId, { before: head + 1, maxLines, maxBytes: Infinity });
  const own = lines.filter((line) => line.attempt === attempt);
  return own.map((line) => stripVTControlCharacters(line.text).replaceAll('\0', '�').slice(0, 500));
}

function itemsOf(chunk: typeof logChunk.$inferSelect): (LogLine | StreamGap)[] {
  let seq = chunk.first;
  return (JSON.parse(unpackBytes(chunk.body)) as Entry[]).map((entry) => {
    if (entry[3] === 'gap') {
      const gap = { fromSeq: seq, toSeq: seq + entry[1] - 1, reason: entry[2] };
      seq += entry[1];
      return gap;
    }
    const [time, stream, text, truncated] = entry;
    return {
      seq: seq++,
      time,
      stream: logStreams[stream] ?? 'SYSTEM',
      text,
      attempt: chunk.attempt,
      truncated: truncated === 1,
    };
  });
}
