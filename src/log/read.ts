// Reads a log from any number on, forward or backward, within bounds of bytes and time.
import { stripVTControlCharacters } from 'node:util';
import { and, asc, desc, eq, gt, lt, lte } from 'drizzle-orm';
import { unpackBytes } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { inChunk, isFiltered, type LogFilter, matcher } from './filter.ts';
import { type Entry, firstKept, type LogLine, logStreams, type StreamGap } from './log.ts';
import { type ReadLimits, startMeter } from './read-limits.ts';
import { logChunk } from './table.ts';

export type LogReading = {
  lines: LogLine[];
  gaps: StreamGap[];
  /**
   * Number up to which the log was read, or down to which when backward. With a filter it may be
   * far beyond the last matching line.
   */
  position: number;
  /** True when unread lines remain in this direction. */
  more: boolean;
};

/**
 * Chunks of the first query and of the largest. A chunk may hold one line or a thousand, so a read
 * begins with 2 and doubles with each query.
 */
const [fewChunks, chunksPerQuery] = [2, 32];

/** Bytes of lines that one query should load at most. */
const bytesPerQuery = 2 * 1024 * 1024;

/**
 * Chunks that one call reads at most, so that a filter that matches little does not keep a
 * connection for long.
 */
const chunksPerRead = 1_024;

/** Estimated memory of a line without its text, in bytes. */
export const lineBytes = 100;

/**
 * Returns the number of chunks for the next query: twice as many as in the last one, bounded by
 * their mean size so that the query loads about `bytesPerQuery`.
 */
function nextTake(take: number, chunks: readonly { size: number }[]): number {
  const mean = chunks.reduce((sum, { size }) => sum + size, 1) / Math.max(1, chunks.length);
  return Math.max(1, Math.min(2 * take, chunksPerQuery, Math.floor(bytesPerQuery / mean)));
}

/**
 * Reads lines with numbers above `after`, in order: up to `maxLines` lines or about `maxBytes` of
 * text, at least one line. `head` is the last number of the log when the caller looked. With a
 * filter the read may end earlier, at its `position`.
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
  const meter = startMeter(options, filtered);
  let bytes = 0;
  let take = fewChunks;
  for (let seen = 0; reading.position < head && seen < chunksPerRead; seen += take) {
    const chunks = await chunksAfter(db, jobId, reading.position, head, filter).limit(take);
    for (const chunk of chunks) {
      if (meter.hasEnough()) return { ...reading, more: true };
      await meter.open(chunk.size);
      // Without a filter, every number that no chunk holds is a removed line.
      if (!filtered && chunk.first > reading.position + 1) {
        const reason = (await isPruned(db, jobId, chunk.first)) ? 'RETENTION' : 'LOG_LIMIT';
        reading.gaps.push({ fromSeq: reading.position + 1, toSeq: chunk.first - 1, reason });
      }
      for (const item of itemsOf(chunk)) {
        const last = 'toSeq' in item ? item.toSeq : item.seq;
        if (last <= reading.position) continue;
        if (reading.lines.length >= maxLines || size >= maxBytes) {
          await meter.take(bytes);
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
      await meter.take(bytes);
    }
    if (chunks.length < take) {
      // The log limit never removes the newest lines: missing ones at the end were removed by
      // retention.
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

/**
 * Whether retention removed the lines before this chunk. It removes a log from its head on, so the
 * chunk is then the first that is left; the log limit never removes the head.
 */
async function isPruned(db: Db, jobId: string, chunkFirst: number): Promise<boolean> {
  return (await firstKept(db, jobId)) === chunkFirst;
}

/**
 * Moves `reading` past the removed head of the log, and adds it as one gap. Nobody can tell which
 * removed lines a filter would have matched.
 */
async function skipPruned(db: Db, jobId: string, head: number, reading: LogReading): Promise<void> {
  const last = Math.min(head, ((await firstKept(db, jobId)) ?? head + 1) - 1);
  if (last <= reading.position) return;
  reading.gaps.push({ fromSeq: reading.position + 1, toSeq: last, reason: 'RETENTION' });
  reading.position = last;
}

/**
 * Reads the last `maxLines` lines with numbers below `before`, and returns them in order, within
 * the same limits as `readLog`.
 */
export async function readLogBackward(
  db: Db,
  jobId: string,
  options: ReadLimits & { before: number; filter?: LogFilter },
): Promise<LogReading> {
  const { maxLines, maxBytes, filter = {} } = options;
  const reading: LogReading = { lines: [], gaps: [], position: options.before, more: false };
  const matches = matcher(filter);
  const meter = startMeter(options, isFiltered(filter));
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
      if (meter.hasEnough()) return inOrder({ ...reading, more: true });
      await meter.open(chunk.size);
      if (!isFiltered(filter) && chunk.last < reading.position - 1) {
        if (isFull()) return inOrder({ ...reading, more: true });
        reading.gaps.push({ fromSeq: chunk.last + 1, toSeq: reading.position - 1, reason: 'LOG_LIMIT' });
        reading.position = chunk.last + 1;
      }
      for (const item of itemsOf(chunk).reverse()) {
        const first = 'toSeq' in item ? item.fromSeq : item.seq;
        if (first >= reading.position) continue;
        if (isFull()) {
          await meter.take(bytes);
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
      await meter.take(bytes);
    }
    if (chunks.length < take) return inOrder(await endOfBackward(db, jobId, reading, isFull(), filter));
    take = nextTake(take, chunks);
  }
  return inOrder({ ...reading, more: true });
}

/**
 * Adds the head of the log as a gap when retention removed it. A full page leaves it to the next
 * page.
 */
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

/**
 * Returns the last lines of an attempt, up to 500 characters each, without escape sequences: an
 * excerpt that explains a failure.
 */
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
