// Caps: how much of what lasts a token may have open at this gateway, and how fast a socket may begin it. Whoever has no
// token shares one account with all others who have none. Beyond a cap something is refused in a way that clients try
// again: it passes when something else is closed.
import type { ExecutionArgs, ExecutionResult } from 'graphql';
import { accountOf, type Actor } from '../../actor.ts';
import type { Config } from '../../config.ts';
import { Refusal } from '../../errors.ts';
import { connectionFigures } from '../../metrics-registry.ts';
import { refusalError } from '../../graphql/error.ts';
import { describeOperation } from '../graphql/operation.ts';

export type Caps = {
  /** Counts a websocket of the token until the returned function is called; null when it has as many as it may. */
  openSocket(actor: Actor | null): (() => void) | null;
  /**
   * Opens a subscription, and counts it for its token until its results end. Beyond the cap, nothing is opened and the
   * result is an error.
   */
  subscribe<T>(actor: Actor | null, args: ExecutionArgs, open: () => Promise<T> | T): Promise<T | ExecutionResult>;
  /** Throws RATE_LIMITED when a socket has as many operations as it may, `open` with the one that begins, or begins too many a second. */
  beginOnSocket(pace: Pace, open: number): void;
  newPace(): Pace;
};

/** How many operations a socket may begin just now: as many as it may have, and some more each second. */
export type Pace = { left: number; atMs: number };

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
      pace.left = Math.min(perSocket, pace.left + ((now - pace.atMs) / 1000) * beginsPerSecond);
      pace.atMs = now;
      if (pace.left < 1) {
        connectionFigures.capped.inc({ cap: 'pace_of_socket' });
        throw beyond(`This socket begins more than ${beginsPerSecond} operations a second.`, 1);
      }
      pace.left--;
    },
    newPace: () => ({ left: perSocket, atMs: performance.now() }),
  };
}

function beyond(message: string, seconds = retryAfterSeconds): Refusal {
  const hint = 'End what is not needed any more, or share one subscription among those who look at the same.';
  return new Refusal('RATE_LIMITED', message, { hint, retryAfterSeconds: seconds });
}

/** Counts up to `most` for each account; the function that is returned counts down again, once. */
function createCounter(most: number): (account: string) => (() => void) | null {
  const counts = new Map<string, number>();
  return (account) => {
    const count = counts.get(account) ?? 0;
    if (count >= most) return null;
    counts.set(account, count + 1);
    return once(() => {
      const left = (counts.get(account) ?? 1) - 1;
      if (left > 0) counts.set(account, left);
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

/** Calls `release` when what was opened has ended, or was not opened; iterators stay hand-written, so that `return` wakes `next`. */
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
  return iterator as T; // of the same results; nothing else of what was opened is used
}

function isIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value;
}
