// Feeds: one per channel and gateway while it has followers. A follower is a position and a pull; a message only says
// how far a stream has come. A lost message costs seconds, never data: a jittered check makes everybody look again.
import type { Bus } from '../bus/bus.ts';
import { passingFault } from '../database/database.ts';
import type { Heads, Nudge } from './commit.ts';

type Feed = { heads: Heads; checks: number; followers: Set<() => void>; ready: Promise<() => Promise<void>> };

/** What a reader found after its position. */
export type Reading<T> = {
  /** What to send; null for nothing new. */
  value: T | null;
  /** The heads that this reading has seen: only what goes beyond one of them is news. */
  seen: Heads;
  /** More can be read at once. */
  more: boolean;
  /** The stream has ended and all of it was read. */
  done: boolean;
  /** Look again after so many milliseconds, whatever is heard: there are rows that cannot be read yet. */
  againMs?: number;
};

export type FollowOptions<T> = {
  channel: string;
  /** Reads on from where it stopped before. With `first` it returns a value in any case: the stream says that it is live. */
  read(first: boolean): Promise<Reading<T>>;
  /** Least time between two values while the stream is live. */
  minIntervalMs?: number;
};

const awayPauseMs = 500;

export class Feeds {
  readonly #bus: Bus;
  readonly #checkMs: number;
  readonly #feeds = new Map<string, Feed>();
  readonly #timer: NodeJS.Timeout;
  readonly #stopListening: () => void;

  /** `checkMs`: how often, on average, every follower looks again even when nothing was heard. */
  constructor(bus: Bus, checkMs = 5_000) {
    this.#bus = bus;
    this.#checkMs = checkMs;
    this.#stopListening = bus.onBreak(() => this.#checkAll());
    this.#timer = setTimeout(() => this.#checkLater(), this.#jittered()).unref();
  }

  /** Number of channels that are followed. */
  get size(): number {
    return this.#feeds.size;
  }

  /** Ends the checks; followers that are left get nothing more. */
  close(): void {
    clearTimeout(this.#timer);
    this.#stopListening();
    for (const feed of this.#feeds.values()) for (const wake of feed.followers) wake();
  }

  /**
   * The values of a stream, from history and live, in one piece. Hand-written rather than `async function*`: its
   * `return()` must wake a waiting `next()`, or a subscription that nobody reads any more would stay for ever.
   */
  follow<T>(options: FollowOptions<T>): AsyncIterableIterator<T> {
    let feed: Feed | undefined;
    let ended = false;
    let first = true;
    let live = false;
    let lastSentAt = 0;
    let wake = () => {};
    const wakeUp = () => wake();

    const end = () => {
      if (!ended && feed) this.#leave(options.channel, feed, wakeUp);
      ended = true;
      wakeUp();
    };
    const sleep = (ms: number | null, until: () => boolean) =>
      new Promise<void>((resolve) => {
        const timer = ms === null ? undefined : setTimeout(() => done(), ms);
        const done = () => {
          clearTimeout(timer);
          wake = () => {};
          resolve();
        };
        wake = () => void ((ended || until()) && done());
        wake();
      });

    const pull = async (): Promise<IteratorResult<T>> => {
      if (!feed && !ended) {
        feed = this.#join(options.channel, wakeUp);
        await feed.ready; // heard from now on: nothing falls between the first read and the first message
      }
      while (feed && !ended) {
        const pauseMs = live ? lastSentAt + (options.minIntervalMs ?? 0) - Date.now() : 0;
        if (pauseMs > 0) await sleep(pauseMs, () => false);
        if (ended) break;
        const { checks, heads } = feed;
        const heard = { ...heads }; // of this the reading below knows, even where it may not read it yet
        const reading = await readUnlessAway(options.read, first);
        if (ended) break;
        if (!reading) {
          await sleep(awayPauseMs * (0.5 + Math.random()), () => false);
          continue;
        }
        live = !reading.more;
        if (reading.done) end();
        if (reading.value !== null) {
          first = false;
          lastSentAt = Date.now();
          return { done: false, value: reading.value };
        }
        if (reading.more || reading.done) continue;
        const current = feed;
        const isNews = () => isBeyond(heads, reading.seen, heard) || current.checks !== checks;
        await sleep(reading.againMs ?? null, isNews);
      }
      return { done: true, value: undefined };
    };

    return {
      async next() {
        try {
          return await pull();
        } catch (error) {
          end();
          throw error;
        }
      },
      async return() {
        end();
        return { done: true, value: undefined };
      },
      async throw(error: unknown) {
        end();
        throw error;
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  #join(channel: string, wake: () => void): Feed {
    let feed = this.#feeds.get(channel);
    if (!feed) {
      const opened: Feed = { heads: {}, checks: 0, followers: new Set(), ready: Promise.resolve(async () => {}) };
      opened.ready = this.#bus.subscribe(channel, (message) => this.#hear(opened, message));
      this.#feeds.set(channel, opened);
      feed = opened;
    }
    feed.followers.add(wake);
    return feed;
  }

  #leave(channel: string, feed: Feed, wake: () => void): void {
    feed.followers.delete(wake);
    if (feed.followers.size > 0) return;
    if (this.#feeds.get(channel) === feed) this.#feeds.delete(channel);
    feed.ready.then((unsubscribe) => unsubscribe()).catch(() => {});
  }

  #hear(feed: Feed, message: string): void {
    for (const [name, head] of Object.entries((JSON.parse(message) as Nudge).heads)) {
      feed.heads[name] = Math.max(head, feed.heads[name] ?? 0);
    }
    for (const wake of feed.followers) wake();
  }

  #checkLater(): void {
    this.#checkAll();
    this.#timer.refresh();
  }

  #checkAll(): void {
    for (const feed of this.#feeds.values()) {
      feed.checks++;
      for (const wake of feed.followers) wake();
    }
  }

  #jittered(): number {
    return this.#checkMs * (0.75 + Math.random() / 2);
  }
}

/**
 * Null when the database is away in the middle of a stream: it goes on when that is back, and its follower need not know.
 * At the beginning the caller is told instead, since nothing was promised yet.
 */
async function readUnlessAway<T>(read: FollowOptions<T>['read'], first: boolean): Promise<Reading<T> | null> {
  try {
    return await read(first);
  } catch (error) {
    if (first || !passingFault(error)) throw error;
    return null;
  }
}

function isBeyond(heads: Heads, seen: Heads, heard: Heads): boolean {
  return Object.entries(seen).some(([name, head]) => (heads[name] ?? 0) > Math.max(head, heard[name] ?? 0));
}
