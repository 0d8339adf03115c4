// Whether the uplink's streams take entries, and since when the oldest waits. A stream whose last id is used up takes
// none for ever: it is made anew, but only when nothing on it can be lost.
import { channels, uplinkStreams } from './bus.ts';
import { connect, type Connection, isRefused, requireAll } from './redis-connection.ts';
import { appendMark, group, isGroupGone, isWrongType, messageOf, streams } from './redis-entry.ts';

/** Appends to every stream; rejects with a sentence about each that takes nothing. `url` is for repairs. */
export async function probeStreams(connection: Connection, url: string): Promise<void> {
  const problems = await Promise.all(streams.map((stream) => probeStream(connection, url, stream)));
  const reported = problems.filter((problem) => problem !== null);
  if (reported.length > 0) throw new Error(reported.join(' '));
}

/** Null when the stream takes entries. */
async function probeStream(connection: Connection, url: string, stream: number): Promise<string | null> {
  const key = channels.uplink(stream);
  try {
    await appendMark(connection, stream);
    return null;
  } catch (error) {
    if (!isRefused(error)) throw error; // Redis is away: all streams are
    if (isWrongType(error)) return `${key} holds something that is no stream: delete it.`;
    if (!messageOf(error).includes('exhausted')) return `${key} takes no entries: ${messageOf(error)}.`;
    const left = await renewStream(url, stream);
    if (left === 0) return probeAgain(connection, stream);
    return `${key} takes no entries: its last id is used up. It is made anew when its ${left} entries are stored.`;
  }
}

async function probeAgain(connection: Connection, stream: number): Promise<string | null> {
  return appendMark(connection, stream).then(
    () => null,
    (error: unknown) => `${channels.uplink(stream)} takes no entries: ${messageOf(error)}.`,
  );
}

/**
 * Deletes a stream and makes it anew when nothing is left on it or pending, and nobody has touched it since that was
 * asked; runners send again what it refused. Resolves with the number of entries that are left. WATCH and MULTI belong
 * to a connection, on which nobody else may be meanwhile: it is a new one.
 */
async function renewStream(url: string, stream: number): Promise<number> {
  const key = channels.uplink(stream);
  const own = connect(url, () => {});
  try {
    return await own.run(async (redis) => {
      await redis.watch(key);
      const left = Math.max(await redis.xlen(key), await countPending(own, key));
      if (left > 0) return left;
      const results = await redis.multi().del(key).xgroup('CREATE', key, group, '0', 'MKSTREAM').exec();
      if (results) requireAll(results);
      return 0;
    });
  } finally {
    await own.close(); // ends the WATCH too
  }
}

async function countPending(connection: Connection, key: string): Promise<number> {
  return (await readPending(connection, key))?.count ?? 0;
}

/** Entries of a stream that were delivered and are not done with; null for none. */
async function readPending(connection: Connection, key: string): Promise<{ count: number; oldest: string } | null> {
  const answer = await connection
    .run((redis) => redis.xpending(key, group))
    .catch((error: unknown) => (isGroupGone(error) || isWrongType(error) ? null : Promise.reject(error)));
  const [count, oldest] = (answer ?? []) as [count?: number, oldest?: string | null];
  return count && oldest ? { count, oldest } : null;
}

/** Tells when the oldest entry of all streams arrived: the first part of its id, milliseconds by the clock of Redis. */
export function createAgeWatch(connection: Connection): () => Promise<Date | null> {
  const firstSeen = new Map<number, { id: string; time: number }>();

  async function timeOfOldest(stream: number): Promise<number | null> {
    const key = channels.uplink(stream);
    // Those that were delivered are older than those that were not, and are told without their content.
    const id = (await readPending(connection, key))?.oldest ?? (await readFirst(connection, key));
    if (id === null) {
      firstSeen.delete(stream);
      return null;
    }
    const time = Number(id.split('-', 1)[0]);
    const now = Date.now();
    if (time <= now) return time;
    // A sender may choose ids, and one in the year 2286 makes all that follow it as late.
    const seen = firstSeen.get(stream);
    if (seen?.id === id) return seen.time;
    firstSeen.set(stream, { id, time: now });
    return now;
  }

  return async () => {
    const times = await Promise.all(Array.from({ length: uplinkStreams }, (_, stream) => timeOfOldest(stream)));
    const some = times.filter((time) => time !== null);
    return some.length === 0 ? null : new Date(Math.min(...some));
  };
}

async function readFirst(connection: Connection, key: string): Promise<string | null> {
  const entries = await connection
    .run((redis) => redis.xrange(key, '-', '+', 'COUNT', 1))
    .catch((error: unknown) => (isWrongType(error) ? [] : Promise.reject(error)));
  return entries[0]?.[0] ?? null;
}
