// The uplink over Redis streams: entries stay in their stream until they are done with, whoever took them. Nothing here
// deletes what is not done (no MAXLEN, no DELCONSUMER): each loss would cost a runner a second.
import { type Bus, channels, type UplinkEntry, uplinkStreams } from './bus.ts';
import { connect, type Connection, requireAll } from './redis-connection.ts';

type Consumer = {
  /** Read and not handed out yet. */
  readonly buffer: UplinkEntry[];
  /** Handed out and not done with. */
  readonly taken: Set<string>;
  /** What Redis holds for it is not known: it is new, or an answer was lost. */
  unsure: boolean;
  filling: Promise<void> | null;
  claimAt: number;
};

// As bytes: most of a batch is only passed on.
type RawEntry = [id: Buffer, fields: Buffer[] | null];
type RawStreams = [key: Buffer, entries: RawEntry[]][];

const group = 'astraml';
const streams = Array.from({ length: uplinkStreams }, (_, stream) => stream);
const keys = streams.map((stream) => channels.uplink(stream));
/** Redis holds a read no longer than this, so that a connection that is cut off is noticed. */
const longestBlockMs = 1_000;

/** Puts a batch on its stream and wakes whoever watches: `psubscribe 'astraml:*'` shows that it passed, not what it says. */
export async function appendEntry(connection: Connection, stream: number, batch: string): Promise<void> {
  const key = channels.uplink(stream);
  await connection.run(async (redis) => {
    requireAll(await redis.pipeline().xadd(key, '*', 'b', batch).publish(key, '').exec());
  });
}

/** Ends entries for all consumers. Both commands or none: acknowledged alone they would stay in the stream for ever. */
export async function endEntries(connection: Connection, entries: readonly UplinkEntry[]): Promise<void> {
  if (entries.length === 0) return;
  await connection.run(async (redis) => {
    const commands = redis.multi();
    for (const [stream, of] of Map.groupBy(entries, (entry) => entry.stream)) {
      const ids = of.map(({ id }) => id);
      commands.xack(channels.uplink(stream), group, ...ids).xdel(channels.uplink(stream), ...ids);
    }
    requireAll(await commands.exec());
  });
}

/** Takes entries on a connection of its own, since reads wait there. `idleMs`: when a consumer's entries are another's. */
export function openUplink(url: string, idleMs: number, report: (error: Error) => void) {
  const consumers = new Map<string, Consumer>();
  let connection: Connection | null = null; // a runner takes nothing
  const uplink = () => (connection ??= connect(url, report));

  async function fill(name: string, consumer: Consumer, max: number, blockMs: number): Promise<void> {
    const { buffer, taken } = consumer;
    try {
      if (consumer.unsure || taken.size > 0) {
        buffer.splice(0, buffer.length, ...(await readStreams(uplink(), name, '0', max)));
        taken.clear();
        consumer.unsure = buffer.length > 0;
        if (buffer.length > 0) return;
      }
      if (performance.now() >= consumer.claimAt) {
        consumer.claimAt = performance.now() + idleMs * (0.25 + Math.random() / 2);
        buffer.push(...(await claimIdle(uplink(), name, idleMs, max)));
      }
      if (buffer.length >= max) return;
      // Every stream is asked for all that is wanted: less in sum says that all were read to their ends.
      buffer.push(...(await readStreams(uplink(), name, '>', max, buffer.length > 0 ? null : blockMs)));
    } catch (error) {
      consumer.unsure = true;
      if (!isGroupGone(error)) throw error;
      await createGroups(uplink());
    }
  }

  const take: Bus['take'] = async (name, { max, blockMs, signal }) => {
    const consumer = consumers.get(name) ?? newConsumer();
    consumers.set(name, consumer);
    const deadline = performance.now() + blockMs;
    while (!signal.aborted) {
      if (consumer.buffer.length < max || consumer.taken.size > 0) {
        const waitMs = Math.max(1, Math.min(Math.ceil(deadline - performance.now()), longestBlockMs));
        consumer.filling ??= fill(name, consumer, max, waitMs).finally(() => (consumer.filling = null));
        await unlessAborted(consumer.filling, signal);
        if (signal.aborted) break; // what comes in yet is for the next call
      }
      const entries = consumer.buffer.splice(0, max);
      for (const entry of entries) consumer.taken.add(nameOf(entry));
      if (entries.length > 0 || performance.now() >= deadline) return entries;
    }
    return [];
  };

  return {
    take,
    /** These are done with: they do not come again. */
    forget(entries: readonly UplinkEntry[]) {
      for (const { taken } of consumers.values()) for (const entry of entries) taken.delete(nameOf(entry));
    },
    close: async () => connection?.close(),
  };
}

function newConsumer(): Consumer {
  return { buffer: [], taken: new Set(), unsure: true, filling: null, claimAt: 0 };
}

function nameOf({ stream, id }: UplinkEntry): string {
  return `${stream} ${id}`;
}

/** From `>`, what nobody took yet; from `0`, what this consumer took and is not done with. `blockMs` null does not wait. */
async function readStreams(
  connection: Connection,
  consumer: string,
  from: '>' | '0',
  max: number,
  blockMs: number | null = null,
): Promise<UplinkEntry[]> {
  const places = [...keys, ...keys.map(() => from)];
  const block = blockMs === null ? [] : ['BLOCK', blockMs];
  const args = ['GROUP', group, consumer, 'COUNT', max, ...block, 'STREAMS', ...places];
  const read = (await connection.run((redis) => redis.callBuffer('xreadgroup', args))) as RawStreams | null;
  return (read ?? []).flatMap(([key, entries]) => toEntries(keys.indexOf(key.toString()), entries));
}

/** Takes over what another consumer took and did not end for so long: it is dead, or slow, which does no harm. */
async function claimIdle(
  connection: Connection,
  consumer: string,
  idleMs: number,
  max: number,
): Promise<UplinkEntry[]> {
  const claimed = await connection.run(async (redis) => {
    const commands = redis.pipeline();
    for (const key of keys) commands.callBuffer('xautoclaim', [key, group, consumer, idleMs, '0-0', 'COUNT', max]);
    return requireAll(await commands.exec()) as [cursor: Buffer, entries: RawEntry[]][];
  });
  return claimed.flatMap(([, entries], stream) => toEntries(stream, entries));
}

/** An entry that somebody deleted from its stream is damaged: it ends as such. */
function toEntries(stream: number, entries: readonly RawEntry[]): UplinkEntry[] {
  return entries.map(([id, fields]) => ({ stream, id: id.toString(), batch: fields?.[1] ?? Buffer.of() }));
}

/** Redis lost its data, or is new. 7.0 says UNBLOCKED to a read that waits meanwhile. */
function isGroupGone(error: unknown): boolean {
  return error instanceof Error && /\b(NOGROUP|UNBLOCKED)\b/.test(error.message);
}

/** From 0: what was appended before the group existed is read too. */
async function createGroups(connection: Connection): Promise<void> {
  for (const key of keys) {
    await connection
      .run((redis) => redis.xgroup('CREATE', key, group, '0', 'MKSTREAM'))
      .catch((error: unknown) => {
        if (!(error instanceof Error && error.message.includes('BUSYGROUP'))) throw error; // another gateway was first
      });
  }
}

/** Resolves when the promise does, or at once when the signal is aborted; rejects with the promise. */
async function unlessAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const done = new AbortController();
  const aborted = new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true, signal: done.signal });
  });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    done.abort();
  }
}
