// One connection to Redis that comes back by itself. While it is away commands reject at once, and no command waits
// for long: whoever sends one tries again. An error carries no arguments: they may be a password, or what a job printed.
import { Redis } from 'ioredis';

export type Connection = {
  /** For its events; commands go through `run`. */
  readonly redis: Redis;
  /** Runs a command; one that comes before the first connection is made waits for it. */
  run<T>(command: (redis: Redis) => Promise<T>): Promise<T>;
  /** Ends it. Ending twice is fine. */
  close(): Promise<void>;
};

/** The command was never sent: nothing came of it. */
export class NotSent extends Error {
  override readonly name = 'NotSent';
}

const commandMs = 3_000;
/** A connection that is silent for so long, with a command under way, is dead: it is made anew. */
const silentMs = 4_000;
const connectMs = 3_000;
const closeMs = 500;
const longestPauseMs = 1_000;

/** Connects in the background, for ever. `report` gets each failure to do so. */
export function connect(url: string, report: (error: Error) => void): Connection {
  const redis = new Redis(url, {
    connectTimeout: connectMs,
    commandTimeout: commandMs,
    socketTimeout: silentMs,
    disconnectTimeout: closeMs,
    retryStrategy: (times) => 20 + Math.random() * Math.min(longestPauseMs, 50 * 2 ** times),
    // What was under way when the connection broke rejects at once: sent again behind its sender's back it might come
    // after what was sent since.
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    enableOfflineQueue: false,
    // ioredis would subscribe again in a promise that nobody catches, and without saying when it is done.
    autoResubscribe: false,
    // Asks INFO and CLIENT, which a runner may not.
    enableReadyCheck: false,
    disableClientInfo: true,
  });
  let closed = false;
  redis.on('error', (error: unknown) => report(plainError(error)));
  return {
    redis,
    async run(command) {
      if (closed) throw new NotSent('The bus is closed.');
      if (redis.status !== 'ready') await untilReady(redis);
      try {
        return await command(redis);
      } catch (error) {
        throw plainError(error);
      }
    },
    async close() {
      if (closed) return;
      closed = true;
      const open = ['connecting', 'connect', 'ready'].includes(redis.status);
      redis.disconnect();
      if (open) await untilAny(redis, ['end'], 2 * closeMs);
    },
  };
}

/** Whether Redis answered that it will not: trying again would not help. */
export function isRefused(error: unknown): boolean {
  return error instanceof Error && error.name === 'ReplyError';
}

/** Throws the error of the first command of a pipeline that failed. */
export function requireAll(results: [error: Error | null, result: unknown][] | null): unknown[] {
  const failed = results?.find(([error]) => error)?.[0];
  if (failed) throw failed;
  return results?.map(([, result]) => result) ?? [];
}

async function untilReady(redis: Redis): Promise<void> {
  if (redis.status === 'connecting' || redis.status === 'connect') await untilAny(redis, ['ready', 'close'], connectMs);
  // the status has changed while we waited
  if ((redis.status as string) !== 'ready') throw new NotSent('Redis cannot be reached.');
}

/** Resolves at the first of these events, or when the time is over. `events.once` would reject at each error. */
async function untilAny(redis: Redis, events: string[], timeoutMs: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, timeoutMs);
  for (const event of events) redis.once(event, resolve);
  await promise;
  clearTimeout(timer);
  for (const event of events) redis.off(event, resolve);
}

/** Without arguments, which `message` may quote at its end. */
export function plainError(error: unknown): Error {
  const { message, name } = error instanceof Error ? error : new Error(String(error));
  const plain = new Error(`Redis: ${(message || 'no connection').replace(/, with args beginning with[^]*/, '')}`);
  plain.name = name;
  return plain;
}
