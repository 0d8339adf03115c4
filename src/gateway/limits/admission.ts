// Admission of operations, the same for HTTP and websockets: a share of points for each token, a
// bound on operations in flight, and a deadline. All is counted in this process, so a token that
// uses two gateways has its share at each.
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { accountOf, type Actor } from '../../actor.ts';
import type { Config } from '../../config.ts';
import { Refusal } from '../../errors.ts';

export type Admission = {
  /**
   * Charges the cost of an operation (at least 1 point) to the caller's token; all callers without
   * a token share one account. Throws RATE_LIMITED when the share is used up.
   */
  charge(actor: Actor | null, cost: number): Promise<void>;
  /**
   * Runs an operation. Throws OVERLOADED without beginning it when too many are in flight, and
   * TIMEOUT when it is not done in time. `signal` is aborted at the deadline, and when `clientGone`
   * is. A statement that still runs in Postgres is cancelled there after the same time
   * (`statement_timeout`).
   */
  run<T>(work: (signal: AbortSignal) => T | Promise<T>, clientGone?: AbortSignal): Promise<T>;
};

type Settings = Pick<Config, 'rateLimitPoints' | 'rateLimitWindowSeconds' | 'maxInFlight' | 'operationSeconds'>;

export function createAdmission(config: Settings): Admission {
  const { rateLimitPoints: points, rateLimitWindowSeconds: duration, maxInFlight, operationSeconds } = config;
  const limiter = points > 0 ? new RateLimiterMemory({ points, duration }) : null;
  let inFlight = 0;
  return {
    async charge(actor, cost) {
      if (!limiter) return;
      try {
        await limiter.consume(accountOf(actor), Math.max(1, cost));
      } catch (error) {
        if (!(error instanceof RateLimiterRes)) throw error;
        const retryAfterSeconds = Math.max(1, Math.ceil(error.msBeforeNext / 1000));
        const share = `${points} points of ${duration} s`;
        const message = actor
          ? `This token has used its ${share}; it has new ones in ${retryAfterSeconds} s.`
          : `All who send no token have used their ${share}; they have new ones in ${retryAfterSeconds} s.`;
        throw new Refusal('RATE_LIMITED', message, {
          hint: actor
            ? 'An operation costs as many points as it can return objects: ask for less, or subscribe.'
            : 'Send a token: each has points of its own.',
          retryAfterSeconds,
        });
      }
    },
    async run(work, clientGone) {
      if (inFlight >= maxInFlight) {
        const message = 'The gateway has as many operations in flight as it may; this one was not begun.';
        throw new Refusal('OVERLOADED', message, { retryAfterSeconds: 1 });
      }
      inFlight++;
      const late = new AbortController();
      const signal = clientGone ? AbortSignal.any([late.signal, clientGone]) : late.signal;
      const working = (async () => work(signal))().finally(() => inFlight--);
      return withDeadline(working, operationSeconds, late);
    },
  };
}

async function withDeadline<T>(working: Promise<T>, seconds: number, late: AbortController): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const refusal = new Refusal('TIMEOUT', `The operation took longer than ${seconds} s.`, { retryAfterSeconds: 1 });
      reject(refusal);
      late.abort(refusal);
    }, seconds * 1000);
  });
  try {
    return await Promise.race([working, deadline]);
  } finally {
    clearTimeout(timer);
  }
}
