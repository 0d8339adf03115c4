// Reading the uplink from Redis streams: entries stay in their stream until they are done with, whoever took them. Nothing
// here deletes what is not done (no MAXLEN, no DELCONSUMER): each loss would cost a runner a second.
import { setTimeout as sleep } from 'node:timers/promises';
import { type Bus, channels, type UplinkEntry } from './bus.ts';
import { connect, type Connection, plainError } from './redis-connection.ts';
import {
  batchOf,
  createGroup,
  endEntries,
  group,
  isGroupGone,
  isWrongType,
  type RawEntry,
  streams,
} from './redis-entry.ts';

type Consumer = {
  readonly name: string;
  /** Read and not handed out yet. */
  readonly buffer: UplinkEntry[];
  /** Names of entries in the buffer, or handed out and not done with. */
  readonly held: Set<string>;
  /** Under way for all calls of `take`; resolves with whether all streams were read to their ends. */
  filling: Promise<boolean> | null;
  /** When idle entries and streams that cannot be read are looked for next. */
  surveyAt: number;
  /** Where in each stream's pending entries the next look for idle ones starts. */
  readonly surveyFrom: string[];
  /** Entries asked of a stream at once. Halved by each failure: an answer may be too large for the time it has. */
  count: number;
  /** Streams whose keys hold something else. */
  readonly unreadable: Set<number>;
  /** Told by the next `take`. */
  trouble: Error | null;
};

type RawStreams = [key: Buffer, entries: RawEntry[]][];

/** Redis holds a read no longer than this, so that a connection that is cut off is noticed. */
const longestBlockMs = 1_000;
const scanStart = '0-0';

/** Takes entries on a connection of its own, since reads wait there. `idleMs`: when a consumer's entries are another's. */
export function openUplinkConsumer(url: string, idleMs: number, report: (error: Error) => void) {
  const consumers = new Map<string, Consumer>();
  let connection: Connection | null = null; // a runner takes nothing
  const uplink = () => (connection ??= connect(url, report));

  async function fill(consumer: Consumer, max: number, blockMs: number): Promise<boolean> {
    const { buffer, unreadable } = consumer;
    try {
      if (performance.now() >= consumer.surveyAt)
        await survey(uplink(), consumer, idleMs, Math.min(max, consumer.count));
      const readable = streams.filter((stream) => !unreadable.has(stream));
      if (readable.length === 0) {
        await sleep(blockMs);
        return true;
      }
      // Every stream is asked for all that is wanted: less of each says that all were read to their ends.
      const count = Math.min(max, consumer.count);
      const read = await readNew(uplink(), consumer.name, readable, count, buffer.length > 0 ? null : blockMs);
      for (const [key, entries] of read) admit(uplink(), consumer, streamOfKey(key), entries);
      consumer.count = Math.min(max, count * 2);
      return read.every(([, entries]) => entries.length < count);
    } catch (error) {
      consumer.count = Math.max(1, consumer.count >> 1);
      if (!isGroupGone(error) && !isWrongType(error)) throw error;
      consumer.surveyAt = 0; // finds out which stream it is
      return false;
    }
  }

  const take: Bus['take'] = async (name, { max, blockMs, signal }) => {
    const consumer = consumers.get(name) ?? newConsumer(name, max);
    consumers.set(name, consumer);
    const { buffer, trouble } = consumer;
    consumer.trouble = null;
    if (trouble) throw trouble;
    const deadline = performance.now() + blockMs;
    for (let isAtEnd = false; !signal.aborted;) {
      const isOver = buffer.length > 0 || performance.now() >= deadline;
      if (buffer.length >= max || (isAtEnd && isOver)) return buffer.splice(0, max);
      const waitMs = Math.max(1, Math.min(Math.ceil(deadline - performance.now()), longestBlockMs));
      consumer.filling ??= fill(consumer, max, waitMs).finally(() => (consumer.filling = null));
      isAtEnd = (await unlessAborted(consumer.filling, signal)) ?? false;
    }
    return []; // what comes in yet is for the next call
  };

  return {
    take,
    /** These are done with. */
    forget(entries: readonly UplinkEntry[]) {
      for (const { held } of consumers.values()) for (const entry of entries) held.delete(nameOf(entry));
    },
    close: async () => connection?.close(),
  };
}

function newConsumer(name: string, count: number): Consumer {
  return {
    name,
    buffer: [],
    held: new Set(),
    filling: null,
    surveyAt: 0,
    surveyFrom: streams.map(() => scanStart),
    count,
    unreadable: new Set(),
    trouble: null,
  };
}

function nameOf({ stream, id }: Pick<UplinkEntry, 'stream' | 'id'>): string {
  return `${stream} ${id}`;
}

function streamOfKey(key: Buffer): number {
  return streams.findIndex((stream) => channels.uplink(stream) === key.toString());
}

/** Buffers entries that the consumer does not hold, and ends marks of probes. */
function admit(connection: Connection, consumer: Consumer, stream: number, entries: readonly RawEntry[]): void {
  const marks: { stream: number; id: string }[] = [];
  for (const [idBytes, fields] of entries) {
    const id = idBytes.toString();
    const name = nameOf({ stream, id });
    if (consumer.held.has(name)) continue;
    const batch = batchOf(fields);
    if (batch === null) {
      marks.push({ stream, id });
      continue;
    }
    consumer.held.add(name);
    consumer.buffer.push({ stream, id, batch });
  }
  endEntries(connection, marks).catch(() => {}); // a mark that stays comes again when it is idle
}

/**
 * Takes over what was delivered `idleMs` ago and is not done with: to another consumer, which is dead or slow, or to this
 * one by an answer that was lost; an entry that it holds is only told to be in good hands. Goes through the pending
 * entries of each stream from look to look, `count` at a time. Notices streams that cannot be read, and makes missing ones.
 */
async function survey(connection: Connection, consumer: Consumer, idleMs: number, count: number): Promise<void> {
  const { name, surveyFrom, unreadable } = consumer;
  consumer.surveyAt = performance.now() + idleMs * (0.25 + Math.random() / 2);
  const results = await connection.run(async (redis) => {
    const commands = redis.pipeline();
    for (const stream of streams) {
      const from = surveyFrom[stream] ?? scanStart;
      commands.callBuffer('xautoclaim', [channels.uplink(stream), group, name, idleMs, from, 'COUNT', count]);
    }
    return commands.exec();
  });
  for (const stream of streams) {
    const [error, result] = results?.[stream] ?? [];
    unreadable.delete(stream);
    if (error && isGroupGone(error)) await createGroup(connection, stream);
    else if (error && isWrongType(error)) unreadable.add(stream);
    else if (error) throw plainError(error);
    else {
      const [cursor, entries] = result as [cursor: Buffer, entries: RawEntry[]];
      surveyFrom[stream] = cursor.toString();
      admit(connection, consumer, stream, entries);
      if (entries.length > 0 && surveyFrom[stream] !== scanStart) consumer.surveyAt = 0; // there may be more
    }
  }
  if (unreadable.size === 0) return;
  const keys = [...unreadable].map((stream) => channels.uplink(stream)).join(', ');
  consumer.trouble = new Error(`Redis: ${keys} holds something that is no stream: delete it.`);
}

/** What nobody took yet, from each of these streams up to `count`. `blockMs` null does not wait. */
async function readNew(
  connection: Connection,
  consumer: string,
  from: readonly number[],
  count: number,
  blockMs: number | null,
): Promise<RawStreams> {
  const places = [...from.map((stream) => channels.uplink(stream)), ...from.map(() => '>')];
  const block = blockMs === null ? [] : ['BLOCK', blockMs];
  const args = ['GROUP', group, consumer, 'COUNT', count, ...block, 'STREAMS', ...places];
  return ((await connection.run((redis) => redis.callBuffer('xreadgroup', args))) as RawStreams | null) ?? [];
}

/** Resolves as the promise does, or with undefined at once when the signal is aborted; rejects with the promise. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  const done = new AbortController();
  const aborted = new Promise<undefined>((resolve) => {
    signal.addEventListener('abort', () => resolve(undefined), { once: true, signal: done.signal });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    done.abort();
  }
}
