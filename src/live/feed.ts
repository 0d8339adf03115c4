// Feeds: one per channel and gateway while it has followers. A follower is a position and a pull; a message only says
// how far a stream has come, and may bring the new rows. A lost one costs seconds, never data: a jittered check makes
// everybody look again.
import type { Bus } from '../bus/bus.ts';
import { passingFault } from '../database/database.ts';
import { liveFigures } from '../metrics-registry.ts';
import type { Notification, StreamPositions } from './commit.ts';
import {
  type FollowerReader,
  highest,
  isBeyond,
  type Position,
  type Reading,
  SharedReader,
  type SharedStream,
} from './shared-reader.ts';
import { SingleFlight } from './single-flight.ts';

export type { Reading, SharedStream, StreamSlice } from './shared-reader.ts';

type Feed = {
  heads: StreamPositions;
  checks: number;
  news: number;
  followers: Set<() => void>;
  ready: Promise<() => Promise<void>>;
  /** By key. Followers of a shared reader are all of one type, which its key stands for. */
  readers: Map<string, SharedReader<never>>;
};

export type FollowOptions<T> = {
  channel: string;
  /** Least time between two values while the stream is live. */
  minIntervalMs?: number;
} & (
  | {
      /** Reads on from where it stopped before. With `first` it returns a value in any case: the stream says that it is live. */
      read(first: boolean): Promise<Reading<T>>;
    }
  | { shared: SharedStream<T> | SharedStream<T, string> }
);

const awayPauseMs = 500;

export class Feeds {
  readonly #bus: Bus;
  readonly #checkMs: number;
  readonly #feeds = new Map<string, Feed>();
  readonly #firstReads = new SingleFlight<unknown>();
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
    for (const feed of this.#feeds.values()) wakeAll(feed);
  }

  /**
   * What a subscription must know before it begins, e.g. where. Who asks the same at the same time gets the same reading,
   * which begins after now; the key stands for all that it depends on, and it holds nothing of who asks.
   */
  readFirst<T>(key: string, read: () => Promise<T>): Promise<T> {
    return this.#firstReads.fresh(key, read) as Promise<T>;
  }

  /**
   * The values of a stream, from history and live, in one piece. Hand-written rather than `async function*`: its
   * `return()` must wake a waiting `next()`, or a subscription that nobody reads any more would stay for ever.
   */
  follow<T>(options: FollowOptions<T>): AsyncIterableIterator<T> {
    const { channel, minIntervalMs = 0 } = options;
    let feed: Feed | undefined;
    let source: FollowerReader<T> | undefined;
    let ended = false;
    let first = true;
    let live = false;
    let lastSentAt = 0;
    let wake = () => {};
    const wakeUp = () => wake();

    const end = () => {
      if (!ended && feed) this.#leave(options, feed, wakeUp);
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

    const next = async (): Promise<IteratorResult<T>> => {
      try {
        if (!source && !ended) {
          feed = this.#join(channel, wakeUp);
          source = 'shared' in options ? followShared(feed, options.shared) : ownSource(feed, options.read);
          await feed.ready; // heard from now on: nothing falls between the first read and the first message
        }
        while (source && !ended) {
          const pauseMs = live && minIntervalMs > 0 ? lastSentAt + minIntervalMs - Date.now() : 0;
          if (pauseMs > 0) await sleep(pauseMs, () => false);
          if (ended) break;
          const found = source.read(first);
          const reading = found instanceof Promise ? await unlessAway(found, first) : found;
          if (ended) break;
          if (!reading) {
            await sleep(awayPauseMs * (0.5 + Math.random()), () => false);
            continue;
          }
          live = !reading.more;
          if (reading.done) end();
          if (reading.value !== null) {
            first = false;
            if (minIntervalMs > 0) lastSentAt = Date.now();
            return { done: false, value: reading.value };
          }
          if (reading.more || reading.done) continue;
          await sleep(null, source.hasNews);
        }
        return { done: true, value: undefined };
      } catch (error) {
        if (ended) return { done: true, value: undefined }; // whoever left meanwhile is told nothing
        end();
        throw error;
      }
    };

    return {
      next,
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
      const ready = Promise.resolve(async () => {});
      const opened: Feed = { heads: {}, checks: 0, news: 0, followers: new Set(), ready, readers: new Map() };
      opened.ready = this.#bus.subscribe(channel, (message) => hear(opened, message));
      this.#feeds.set(channel, opened);
      liveFigures.feeds.inc();
      feed = opened;
    }
    feed.followers.add(wake);
    liveFigures.followers.inc();
    return feed;
  }

  #leave<T>(options: FollowOptions<T>, feed: Feed, wake: () => void): void {
    if (!feed.followers.delete(wake)) return;
    liveFigures.followers.dec();
    if ('shared' in options) {
      const reader = feed.readers.get(options.shared.key);
      if (reader && --reader.followers === 0) feed.readers.delete(options.shared.key);
    }
    if (feed.followers.size > 0) return;
    if (this.#feeds.get(options.channel) === feed) this.#feeds.delete(options.channel);
    liveFigures.feeds.dec();
    feed.ready.then((unsubscribe) => unsubscribe()).catch(() => {});
  }

  #checkLater(): void {
    this.#checkAll();
    this.#timer.refresh();
  }

  #checkAll(): void {
    for (const feed of this.#feeds.values()) {
      feed.checks++;
      feed.news++;
      wakeAll(feed);
    }
  }

  #jittered(): number {
    return this.#checkMs * (0.75 + Math.random() / 2);
  }
}

function hear(feed: Feed, message: string): void {
  const notification = JSON.parse(message) as Notification; // only gateways write to the channel
  for (const [name, head] of Object.entries(notification.heads)) {
    feed.heads[name] = Math.max(head, feed.heads[name] ?? 0);
  }
  feed.news++;
  for (const reader of feed.readers.values()) reader.hear(notification);
  wakeAll(feed);
}

function wakeAll(feed: Feed): void {
  for (const wake of feed.followers) wake();
}

/** A follower of the shared reader of its stream, which is made for the first of them. */
function followShared<T>(feed: Feed, given: SharedStream<T> | SharedStream<T, string>): FollowerReader<T> {
  const stream = given as unknown as SharedStream<T, Position>; // all who share a reader have positions of one type
  const readers = feed.readers as unknown as Map<string, SharedReader<T, Position>>;
  let reader = readers.get(stream.key);
  if (!reader) readers.set(stream.key, (reader = new SharedReader(feed, stream, () => wakeAll(feed))));
  reader.followers++;
  return reader.follow(stream);
}

/** A follower that reads for itself, e.g. because its rows depend on who reads. */
function ownSource<T>(feed: Feed, read: (first: boolean) => Promise<Reading<T>>): FollowerReader<T> {
  let hasNews = () => true;
  return {
    async read(first) {
      const { checks } = feed;
      const heard = { ...feed.heads }; // of this the reading below knows, even where it may not read it yet
      liveFigures.reads.inc();
      const reading = await read(first);
      const seen = highest(reading.seen, heard);
      hasNews = () => isBeyond(feed.heads, seen) || feed.checks !== checks;
      return reading;
    },
    hasNews: () => hasNews(),
  };
}

/**
 * Null when the database is away in the middle of a stream: it goes on when that is back, and its follower need not know.
 * At the beginning the caller is told instead, since nothing was promised yet.
 */
async function unlessAway<T>(reading: Promise<Reading<T>>, first: boolean): Promise<Reading<T> | null> {
  try {
    return await reading;
  } catch (error) {
    if (first || !passingFault(error)) throw error;
    return null;
  }
}
