// A connection to Redis that reconnects by itself. While it is away commands reject at once, and no
// command waits for long: its caller tries again. Errors hold no arguments, which may be a password
// or the output of a job.
import { Redis } from 'ioredis';

export type Connection = {
  /** Only for its events; commands go through `run`. */
  readonly redis: Redis;
  /** Runs a command. Before the first connection it waits for that one. */
  run<T>(command: (redis: Redis) => Promise<T>): Promise<T>;
  /** Closes the connection. Closing twice is fine. */
  close(): Promise<void>;
};

/** The command was never sent, so it had no effect. */
export class NotSent extends Error {
  override readonly name = 'NotSent';
}

const commandMs = 3_000;
/**
 * A connection that is silent for this long, with a command under way, is dead: a new one is made.
 */
const silentMs = 4_000;
const connectMs = 3_000;
const closeMs = 500;
const longestPauseMs = 1_000;

/** Makes a connection in the background, and reconnects for ever. `report` gets each failure. */
export function connect(url: string, report: (error: Error) => void): Connection {
  const redis = new Redis(url, {
    connectTimeout: connectMs,
    commandTimeout: commandMs,
    socketTimeout: silentMs,
    disconnectTimeout: closeMs,
    retryStrategy: (times) => 20 + Math.random() * Math.min(longestPauseMs, 50 * 2 ** times),
    // Commands under way when the connection breaks reject at once. Resent by ioredis, they might
    // come after commands that the caller sent since.
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    enableOfflineQueue: false,
    // ioredis would resubscribe in a promise without a handler, and would not tell when it is done.
    autoResubscribe: false,
    // The checks use INFO and CLIENT, which a runner may not call.
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

/** Whether Redis refused the command itself: trying again would not help. */
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
  // TypeScript does not know that the status may have changed during the wait.
  if ((redis.status as string) !== 'ready') throw new NotSent('Redis cannot be reached.');
}

/**
 * Resolves at the first of these events, or after the time. `events.once` would also reject at each
 * error.
 */
async function untilAny(redis: Redis, events: string[], timeoutMs: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, timeoutMs);
  for (const event of events) redis.once(event, resolve);
  await promise;
  clearTimeout(timer);
  for (const event of events) redis.off(event, resolve);
}

/**
 * Makes an error without the arguments of the command, which ioredis quotes at the end of
 * `message`.
 */
export function plainError(error: unknown): Error {
  const { message, name } = error instanceof Error ? error : new Error(String(error));
  const plain = new Error(`Redis: ${(message || 'no connection').replace(/, with args beginning with[^]*/, '')}`);
  plain.name = name;
  return plain;
}
