// Reads the uplink from Redis streams. Entries stay in their stream until they are done, whichever
// consumer took them. No command here deletes an entry that is not done (no MAXLEN, no
// DELCONSUMER): each loss would cost a runner a second.
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
  /** Entries that were read, and not returned by `take` yet. */
  readonly buffer: UplinkEntry[];
  /** Names of entries in the buffer, and of those that `take` returned and that are not done. */
  readonly held: Set<string>;
  /**
   * The read under way, shared by all calls of `take`. Resolves to whether all streams were read to
   * their ends.
   */
  filling: Promise<boolean> | null;
  /** Time of the next survey: a look for idle entries and for streams that cannot be read. */
  surveyAt: number;
  /** For each stream, the place in its pending entries at which the next survey starts. */
  readonly surveyFrom: string[];
  /**
   * Number of entries to ask of a stream at once. Each failure halves it, since an answer may be
   * too large to come in time.
   */
  count: number;
  /** Streams whose keys hold another type of value. */
  readonly unreadable: Set<number>;
  /** Error that the next `take` throws. */
  trouble: Error | null;
};

type RawStreams = [key: Buffer, entries: RawEntry[]][];

/** Longest time that Redis holds a read, so that a dead connection is noticed. */
const longestBlockMs = 1_000;
const scanStart = '0-0';

/**
 * Opens a consumer with a connection of its own, since its reads wait there. Entries that another
 * consumer has held for `idleMs` are taken over.
 */
export function openUplinkConsumer(url: string, idleMs: number, report: (error: Error) => void) {
  const consumers = new Map<string, Consumer>();
  let connection: Connection | null = null; // made at the first `take`: a runner never calls it
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
      // Every stream is asked for `count` entries: fewer from each mean that all were read to their
      // ends.
      const count = Math.min(max, consumer.count);
      const read = await readNew(uplink(), consumer.name, readable, count, buffer.length > 0 ? null : blockMs);
      for (const [key, entries] of read) admit(uplink(), consumer, streamOfKey(key), entries);
      consumer.count = Math.min(max, count * 2);
      return read.every(([, entries]) => entries.length < count);
    } catch (error) {
      consumer.count = Math.max(1, consumer.count >> 1);
      if (!isGroupGone(error) && !isWrongType(error)) throw error;
      consumer.surveyAt = 0; // the survey finds out which stream it is
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
    return []; // entries that still arrive stay for the next call
  };

  return {
    take,
    /** Call it when entries are done. */
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
  // a mark that is not ended comes again once it is idle
  endEntries(connection, marks).catch(() => {});
}

/**
 * Takes over entries that were delivered `idleMs` ago and are not done: those of another consumer,
 * which is dead or slow, and those of this one whose delivery was lost. An entry that this consumer
 * holds only has its idle time reset. Each survey goes through `count` pending entries of each
 * stream and goes on where the last one stopped. It also notices streams that cannot be read, and
 * creates missing ones.
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
      // more entries may be idle: the next survey comes at once
      if (entries.length > 0 && surveyFrom[stream] !== scanStart) consumer.surveyAt = 0;
    }
  }
  if (unreadable.size === 0) return;
  const keys = [...unreadable].map((stream) => channels.uplink(stream)).join(', ');
  consumer.trouble = new Error(`Redis: ${keys} holds something that is no stream: delete it.`);
}

/**
 * Reads up to `count` new entries from each of these streams. With `blockMs` null it does not wait.
 */
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

/**
 * Resolves like the promise, or to undefined as soon as the signal is aborted. Rejects like the
 * promise.
 */
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
