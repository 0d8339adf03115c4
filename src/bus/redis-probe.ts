// Probes whether the uplink's streams take entries, and since when the oldest waits. A stream whose
// last id is used up never takes one again: it is recreated, but only when no entry can be lost.
import { channels, uplinkStreams } from './bus.ts';
import { connect, type Connection, isRefused, requireAll } from './redis-connection.ts';
import { appendMark, group, isGroupGone, isWrongType, messageOf, streams } from './redis-entry.ts';

/**
 * Appends a mark to every stream. Rejects with a sentence about each that takes none. `url` is for
 * the repair of a stream.
 */
export async function probeStreams(connection: Connection, url: string): Promise<void> {
  const problems = await Promise.all(streams.map((stream) => probeStream(connection, url, stream)));
  const reported = problems.filter((problem) => problem !== null);
  if (reported.length > 0) throw new Error(reported.join(' '));
}

/** Returns the problem of a stream; null when it takes entries. */
async function probeStream(connection: Connection, url: string, stream: number): Promise<string | null> {
  const key = channels.uplink(stream);
  try {
    await appendMark(connection, stream);
    return null;
  } catch (error) {
    if (!isRefused(error)) throw error; // Redis is away, with all its streams
    if (isWrongType(error)) return `${key} holds something that is no stream: delete it.`;
    if (!messageOf(error).includes('exhausted')) return `${key} takes no entries: ${messageOf(error)}.`;
    const entriesLeft = await renewStream(url, stream);
    if (entriesLeft === 0) return probeAgain(connection, stream);
    return `${key} takes no entries: its last id is used up. It is made anew when its ${entriesLeft} entries are stored.`;
  }
}

async function probeAgain(connection: Connection, stream: number): Promise<string | null> {
  return appendMark(connection, stream).then(
    () => null,
    (error: unknown) => `${channels.uplink(stream)} takes no entries: ${messageOf(error)}.`,
  );
}

/**
 * Deletes and recreates a stream when it holds no entries, none is pending, and no client has
 * touched it since that was checked; runners send again what it refused. Resolves to the number of
 * entries that it still holds. WATCH and MULTI need a connection that no other caller uses
 * meanwhile, so it makes a new one.
 */
async function renewStream(url: string, stream: number): Promise<number> {
  const key = channels.uplink(stream);
  const repairConnection = connect(url, () => {});
  try {
    return await repairConnection.run(async (redis) => {
      await redis.watch(key);
      const entriesLeft = Math.max(await redis.xlen(key), await countPending(repairConnection, key));
      if (entriesLeft > 0) return entriesLeft;
      const results = await redis.multi().del(key).xgroup('CREATE', key, group, '0', 'MKSTREAM').exec();
      if (results) requireAll(results);
      return 0;
    });
  } finally {
    await repairConnection.close(); // closing the connection also ends the WATCH
  }
}

async function countPending(connection: Connection, key: string): Promise<number> {
  return (await readPending(connection, key))?.count ?? 0;
}

/**
 * Reads the number of delivered entries that are not done, and the id of the oldest; null for none.
 */
async function readPending(connection: Connection, key: string): Promise<{ count: number; oldest: string } | null> {
  const answer = await connection
    .run((redis) => redis.xpending(key, group))
    .catch((error: unknown) => (isGroupGone(error) || isWrongType(error) ? null : Promise.reject(error)));
  const [count, oldest] = (answer ?? []) as [count?: number, oldest?: string | null];
  return count && oldest ? { count, oldest } : null;
}

/**
 * Makes a function that returns the arrival time of the oldest entry of all streams. It is the
 * first part of the entry's id: milliseconds by the clock of Redis.
 */
export function createAgeWatch(connection: Connection): () => Promise<Date | null> {
  const firstSeen = new Map<number, { id: string; time: number }>();

  async function timeOfOldest(stream: number): Promise<number | null> {
    const key = channels.uplink(stream);
    // Delivered entries are older than undelivered ones, and XPENDING tells their ids without their
    // content.
    const id = (await readPending(connection, key))?.oldest ?? (await readFirst(connection, key));
    if (id === null) {
      firstSeen.delete(stream);
      return null;
    }
    const time = Number(id.split('-', 1)[0]);
    const now = Date.now();
    if (time <= now) return time;
    // A sender may choose ids, and one in the year 2286 makes all later ids as late. Such an entry
    // counts from the first time it was seen.
    const seen = firstSeen.get(stream);
    if (seen?.id === id) return seen.time;
    firstSeen.set(stream, { id, time: now });
    return now;
  }

  return async () => {
    const times = await Promise.all(Array.from({ length: uplinkStreams }, (_, stream) => timeOfOldest(stream)));
    const knownTimes = times.filter((time) => time !== null);
    return knownTimes.length === 0 ? null : new Date(Math.min(...knownTimes));
  };
}

async function readFirst(connection: Connection, key: string): Promise<string | null> {
  const entries = await connection
    .run((redis) => redis.xrange(key, '-', '+', 'COUNT', 1))
    .catch((error: unknown) => (isWrongType(error) ? [] : Promise.reject(error)));
  return entries[0]?.[0] ?? null;
}
