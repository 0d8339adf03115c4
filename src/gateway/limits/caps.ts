// Caps: how many websockets and subscriptions a token may have open at this gateway, and how fast a
// socket may begin operations. All callers without a token share one account. A refusal of a cap
// tells clients to try again, since it passes when something else is closed.
import type { ExecutionArgs, ExecutionResult } from 'graphql';
import { accountOf, type Actor } from '../../actor.ts';
import type { Config } from '../../config.ts';
import { Refusal } from '../../errors.ts';
import { connectionFigures } from '../../metrics-registry.ts';
import { refusalError } from '../../graphql/error.ts';
import { describeOperation } from '../graphql/operation.ts';

export type Caps = {
  /**
   * Counts a websocket of the token until the returned function is called; null when the token has
   * its maximum.
   */
  openSocket(actor: Actor | null): (() => void) | null;
  /**
   * Opens a subscription and counts it for its token until its results end. Beyond the cap nothing
   * is opened, and the result is an error.
   */
  subscribe<T>(actor: Actor | null, args: ExecutionArgs, open: () => Promise<T> | T): Promise<T | ExecutionResult>;
  /**
   * Throws RATE_LIMITED when a socket has too many operations open (`open` includes the new one),
   * or begins more than 50 a second.
   */
  beginOnSocket(pace: Pace, open: number): void;
  newPace(): Pace;
};

/**
 * Token bucket of one socket: it may begin `tokens` operations now, and gains 50 a second up to the
 * number that it may have open. `atMs` is the time of the last refill.
 */
export type Pace = { tokens: number; atMs: number };

type Settings = Pick<Config, 'maxSubscriptionsPerSocket' | 'maxSubscriptionsPerToken' | 'maxSocketsPerToken'>;

const beginsPerSecond = 50;
const retryAfterSeconds = 5;

export function createCaps(config: Settings): Caps {
  const { maxSubscriptionsPerSocket: perSocket, maxSubscriptionsPerToken: perToken, maxSocketsPerToken } = config;
  const sockets = createCounter(maxSocketsPerToken);
  const subscriptions = createCounter(perToken);
  return {
    openSocket(actor) {
      const leave = sockets(accountOf(actor));
      if (!leave) connectionFigures.capped.inc({ cap: 'sockets_per_token' });
      return leave;
    },
    async subscribe(actor, args, open) {
      const leave = subscriptions(accountOf(actor));
      if (!leave) {
        connectionFigures.capped.inc({ cap: 'subscriptions_per_token' });
        const refusal = beyond(`This token has ${perToken} subscriptions open at this gateway, as many as it may.`);
        return { errors: [refusalError(refusal)] };
      }
      const field = describeOperation(args.document, args.operationName)?.fields[0] ?? 'none';
      connectionFigures.subscriptions.inc({ field });
      return releasedAtEnd(open, () => {
        leave();
        connectionFigures.subscriptions.dec({ field });
      });
    },
    beginOnSocket(pace, open) {
      if (open > perSocket) {
        connectionFigures.capped.inc({ cap: 'subscriptions_per_socket' });
        throw beyond(`This socket has ${perSocket} operations open, as many as it may.`);
      }
      const now = performance.now();
      pace.tokens = Math.min(perSocket, pace.tokens + ((now - pace.atMs) / 1000) * beginsPerSecond);
      pace.atMs = now;
      if (pace.tokens < 1) {
        connectionFigures.capped.inc({ cap: 'pace_of_socket' });
        throw beyond(`This socket begins more than ${beginsPerSecond} operations a second.`, 1);
      }
      pace.tokens--;
    },
    newPace: () => ({ tokens: perSocket, atMs: performance.now() }),
  };
}

function beyond(message: string, seconds = retryAfterSeconds): Refusal {
  const hint = 'End what is not needed any more, or share one subscription among those who look at the same.';
  return new Refusal('RATE_LIMITED', message, { hint, retryAfterSeconds: seconds });
}

/**
 * Makes a counter that counts up to `most` for each account. The returned function counts down
 * again, once.
 */
function createCounter(most: number): (account: string) => (() => void) | null {
  const counts = new Map<string, number>();
  return (account) => {
    const count = counts.get(account) ?? 0;
    if (count >= most) return null;
    counts.set(account, count + 1);
    return once(() => {
      const remaining = (counts.get(account) ?? 1) - 1;
      if (remaining > 0) counts.set(account, remaining);
      else counts.delete(account);
    });
  };
}

function once(work: () => void): () => void {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    work();
  };
}

/**
 * Calls `release` once the opened results end, or when nothing was opened. The iterator is no
 * generator: its `return` must wake a `next` that waits, which a generator would queue.
 */
async function releasedAtEnd<T>(open: () => Promise<T> | T, release: () => void): Promise<T> {
  const end = once(release);
  let opened: T;
  try {
    opened = await open();
  } catch (error) {
    end();
    throw error;
  }
  if (!isIterable(opened)) {
    end();
    return opened;
  }
  const source = opened[Symbol.asyncIterator]();
  const iterator: AsyncIterableIterator<unknown> = {
    async next() {
      try {
        const result = await source.next();
        if (result.done) end();
        return result;
      } catch (error) {
        end();
        throw error;
      }
    },
    async return() {
      end();
      await source.return?.();
      return { done: true, value: undefined };
    },
    async throw(error: unknown) {
      end();
      await source.return?.();
      throw error;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
  return iterator as T; // callers only iterate the results, so the wrapper may stand for T
}

function isIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value;
}
