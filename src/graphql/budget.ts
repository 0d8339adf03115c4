// Budgets of bytes: bounds on the rows and the answer that one operation holds in memory, and on
// the bytes of all operations of a gateway together. Bytes are taken while rows are read, and given
// back once the answer is written.
import { Refusal } from '../errors.ts';

export type Limits = {
  /** Bytes of rows that one operation may hold, and the same number again for its answer. */
  maxResultBytes: number;
  /** Bytes that all operations may hold together; a single operation may run in any case. */
  maxInFlightBytes: number;
};

/** Budget of one operation. A subscription renews it with each event. */
export type Budget = {
  /**
   * Takes bytes for rows. Throws OPERATION_TOO_LARGE beyond the operation's own limit. Beyond the
   * gateway's limit it waits until other operations give bytes back, and throws OVERLOADED after 5
   * s.
   */
  takeRows(bytes: number): Promise<void>;
  /** Takes bytes for a part of the answer, with the same errors. */
  takeAnswer(bytes: number): Promise<void>;
  /** Gives all bytes back, and starts anew. */
  renew(): void;
  /** Gives all bytes back for good: work of the operation that still runs can take no more. */
  close(): void;
};

/**
 * Bytes of each operation that do not count for the gateway, so that small operations always run.
 */
const freeBytes = 64 * 1024;
const longestWaitMs = 5_000;

type Waiter = { account: string; bytes: number; own: () => number; proceed: () => void };

/**
 * Bytes that all operations of a gateway hold. One account may hold half of them, so that a slow
 * reader stops no other.
 */
export class ResultBytes {
  readonly #limits: Limits;
  readonly #accounts = new Map<string, number>();
  readonly #waiting = new Set<Waiter>();
  #held = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** Number of bytes that are held now. */
  get held(): number {
    return this.#held;
  }

  /** Opens a budget for an account: a token, or `nobody` for all callers without one. */
  open(account: string): Budget {
    const taken = { rows: 0, answer: 0 };
    let counted = 0;
    let closed = false;
    const ended = new AbortController();
    const take = async (kind: keyof typeof taken, bytes: number) => {
      if (closed) throw endedRefusal();
      if (taken[kind] + bytes > this.#limits.maxResultBytes) throw tooLarge(this.#limits.maxResultBytes);
      taken[kind] += bytes;
      const more = Math.max(0, taken.rows + taken.answer - freeBytes) - counted;
      if (more <= 0) return;
      counted += more;
      if (this.#fits(account, more, counted - more)) return this.#add(account, more);
      counted -= more; // bytes count as held only once they were added
      await this.#wait(account, more, () => counted, ended.signal);
      counted += more;
    };
    const renew = () => {
      this.#add(account, -counted);
      counted = taken.rows = taken.answer = 0;
      this.#wakeWaiting();
    };
    return {
      takeRows: (bytes) => take('rows', bytes),
      takeAnswer: (bytes) => take('answer', bytes),
      renew,
      close() {
        if (closed) return;
        closed = true;
        renew();
        ended.abort();
      },
    };
  }

  /**
   * Whether the gateway has room. `own` is what the operation holds already: when nothing else is
   * held, there is room in any case.
   */
  #fits(account: string, bytes: number, own: number): boolean {
    const { maxInFlightBytes: most } = this.#limits;
    if (this.#held === own) return true;
    return this.#held + bytes <= most && (this.#accounts.get(account) ?? 0) + bytes <= most / 2;
  }

  #add(account: string, bytes: number): void {
    const held = (this.#accounts.get(account) ?? 0) + bytes;
    if (held > 0) this.#accounts.set(account, held);
    else this.#accounts.delete(account);
    this.#held += bytes;
  }

  /** Waits until the bytes fit and are added. */
  #wait(account: string, bytes: number, own: () => number, ended: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = () => {
        this.#waiting.delete(waiter);
        clearTimeout(timer);
        ended.removeEventListener('abort', stop);
      };
      const stop = () => {
        end();
        reject(endedRefusal());
      };
      const waiter: Waiter = {
        account,
        bytes,
        own,
        proceed: () => {
          end();
          resolve();
        },
      };
      const timer = setTimeout(() => {
        end();
        reject(overloaded());
      }, longestWaitMs);
      ended.addEventListener('abort', stop);
      this.#waiting.add(waiter);
    });
  }

  #wakeWaiting(): void {
    for (const waiter of this.#waiting) {
      if (!this.#fits(waiter.account, waiter.bytes, waiter.own())) continue;
      this.#add(waiter.account, waiter.bytes);
      waiter.proceed();
    }
  }
}

function tooLarge(bytes: number): Refusal {
  return new Refusal('OPERATION_TOO_LARGE', `The operation would hold more than ${bytes} bytes of results.`, {
    hint: 'Ask for smaller pages (`first`), fewer fields or aliases, or in several operations.',
  });
}

function overloaded(): Refusal {
  const message = 'The operations in flight hold as many bytes of results as they may; this one was given up.';
  return new Refusal('OVERLOADED', message, { retryAfterSeconds: 1 });
}

/** The refusal for work that goes on after its operation: no client gets to see it. */
function endedRefusal(): Refusal {
  return new Refusal('TIMEOUT', 'The operation is over.');
}
