// A follower pulls the values of one stream: it reads while there is something to read, and waits
// when there is not.
import { passingFault } from '../database/database.ts';
import type { FollowerReader, Reading } from './shared-reader.ts';

/** What a follower gets when it joins its channel. */
type Membership<T> = {
  /** Resolves once messages of the channel arrive. */
  ready: Promise<unknown>;
  source: FollowerReader<T>;
  leave(): void;
};

export type FollowerOptions<T> = {
  /** Shortest pause between two values while the follower is caught up. */
  minIntervalMs: number;
  /** Called with the first pull. */
  join(): Membership<T>;
};

/** Mean pause of a follower before it tries a database again that could not be reached. */
const awayPauseMs = 500;

/**
 * It is no `async function*`: ending a subscription must wake a `next()` that waits, and a generator
 * queues `return()` behind it, so that the subscription would stay for ever.
 */
export class Follower<T> implements AsyncIterableIterator<T> {
  readonly #options: FollowerOptions<T>;
  #membership: Membership<T> | undefined;
  #ended = false;
  /** Until the first value was returned. */
  #first = true;
  #live = false;
  #lastSentAt = 0;
  #wake = () => {};

  constructor(options: FollowerOptions<T>) {
    this.#options = options;
  }

  /** Makes a waiting follower look whether there is something to read. */
  readonly wake = (): void => this.#wake();

  async next(): Promise<IteratorResult<T>> {
    const { minIntervalMs, join } = this.#options;
    try {
      if (!this.#membership && !this.#ended) {
        this.#membership = join();
        // The first read begins only once messages arrive, so that no row falls between the two.
        await this.#membership.ready;
      }
      const source = this.#membership?.source;
      while (source && !this.#ended) {
        const pauseMs = this.#live && minIntervalMs > 0 ? this.#lastSentAt + minIntervalMs - Date.now() : 0;
        if (pauseMs > 0) await this.#sleep(pauseMs);
        if (this.#ended) break;
        const result = source.read(this.#first);
        const reading = result instanceof Promise ? await unlessAway(result, this.#first) : result;
        if (this.#ended) break;
        if (!reading) {
          await this.#sleep(awayPauseMs * (0.5 + Math.random()));
          continue;
        }
        this.#live = !reading.more;
        if (reading.done) this.#end();
        if (reading.value !== null) {
          this.#first = false;
          if (minIntervalMs > 0) this.#lastSentAt = Date.now();
          return { done: false, value: reading.value };
        }
        if (!reading.more && !reading.done) await this.#sleep(null, source.hasNews);
      }
      return { done: true, value: undefined };
    } catch (error) {
      // a subscriber that has left gets no error
      if (this.#ended) return { done: true, value: undefined };
      this.#end();
      throw error;
    }
  }

  async return(): Promise<IteratorResult<T>> {
    this.#end();
    return { done: true, value: undefined };
  }

  async throw(error: unknown): Promise<never> {
    this.#end();
    throw error;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #end(): void {
    if (!this.#ended) this.#membership?.leave();
    this.#ended = true;
    this.#wake();
  }

  /** Resolves after `ms`, or when the follower is woken and has ended or `until` holds. */
  #sleep(ms: number | null, until = () => false): Promise<void> {
    return new Promise((resolve) => {
      const timer = ms === null ? undefined : setTimeout(() => done(), ms);
      const done = () => {
        clearTimeout(timer);
        this.#wake = () => {};
        resolve();
      };
      this.#wake = () => void ((this.#ended || until()) && done());
      this.#wake();
    });
  }
}

/**
 * Returns null when the database cannot be reached in the middle of a stream: the follower tries
 * again after a pause, and its subscriber notices nothing. Before the first value the error is
 * thrown, since the subscriber can still be refused.
 */
async function unlessAway<T>(reading: Promise<Reading<T>>, first: boolean): Promise<Reading<T> | null> {
  try {
    return await reading;
  } catch (error) {
    if (first || !passingFault(error)) throw error;
    return null;
  }
}
