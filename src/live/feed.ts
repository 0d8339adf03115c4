// Feeds make subscriptions. A follower (one subscriber) keeps a position in its stream and pulls
// the rows behind it. A message on the bus only tells how far a stream has come, and may bring the
// new rows. A lost message costs seconds, never rows: about every 5 s all followers look into the
// database.
import type { Bus } from '../bus/bus.ts';
import { liveFigures } from '../metrics-registry.ts';
import type { Notification, StreamPositions } from './commit.ts';
import { Follower } from './follower.ts';
import { highest, isBeyond } from './positions.ts';
import { type FollowerReader, type Position, type Reading, SharedReader, type SharedStream } from './shared-reader.ts';
import { SingleFlight } from './single-flight.ts';

export type { Reading, SharedStream, StreamSlice } from './shared-reader.ts';

/** One channel while it has followers. */
type Feed = {
  /** Highest positions in the messages so far, by stream. */
  heads: StreamPositions;
  /** Counts the rounds in which all followers look into the database. */
  checks: number;
  /** Counts messages and checks together: while it is unchanged, readers keep their last answer. */
  news: number;
  /** One function a follower, which wakes it when it waits. */
  followers: Set<() => void>;
  /** Resolves once the bus delivers messages of the channel, to the function that unsubscribes. */
  ready: Promise<() => Promise<void>>;
  /** Shared readers by their key. The key also stands for the type of the values, hence `never`. */
  readers: Map<string, SharedReader<never>>;
};

export type FollowOptions<T> = {
  channel: string;
  /**
   * Shortest pause between two values while the follower is caught up; history comes without
   * pauses.
   */
  minIntervalMs?: number;
} & (
  | {
      /**
       * Returns the rows behind the position at which the last call ended. With `first` it returns
       * a value even without rows, since the first value tells the subscriber that the stream is
       * live.
       */
      read(first: boolean): Promise<Reading<T>>;
    }
  | { shared: SharedStream<T> | SharedStream<T, string> }
);

export class Feeds {
  readonly #bus: Bus;
  readonly #checkMs: number;
  readonly #feeds = new Map<string, Feed>();
  readonly #firstReads = new SingleFlight<unknown>();
  readonly #timer: NodeJS.Timeout;
  readonly #stopListening: () => void;

  /**
   * `checkMs` is the mean time between two checks, at which every follower looks into the database
   * although no message came. It is jittered by a quarter either way.
   */
  constructor(bus: Bus, checkMs = 5_000) {
    this.#bus = bus;
    this.#checkMs = checkMs;
    this.#stopListening = bus.onBreak(() => this.#checkAll());
    this.#timer = setTimeout(() => this.#checkLater(), this.#jittered()).unref();
  }

  /** Number of channels that have followers. */
  get size(): number {
    return this.#feeds.size;
  }

  /** Ends the checks. Followers that are still open get no more values from them. */
  close(): void {
    clearTimeout(this.#timer);
    this.#stopListening();
    for (const feed of this.#feeds.values()) wakeAll(feed);
  }

  /**
   * Reads what a subscription needs before it begins, e.g. its position. Subscriptions that pass
   * the same key at the same time share one read, which begins after this call. The key names
   * everything that the read depends on, and nothing of the viewer.
   */
  readFirst<T>(key: string, read: () => Promise<T>): Promise<T> {
    return this.#firstReads.fresh(key, read) as Promise<T>;
  }

  /** Returns the values of a stream, first history, then live, without a seam. */
  follow<T>(options: FollowOptions<T>): AsyncIterableIterator<T> {
    const { channel, minIntervalMs = 0 } = options;
    const follower: Follower<T> = new Follower({
      minIntervalMs,
      join: () => {
        const feed = this.#join(channel, follower.wake);
        const source = 'shared' in options ? followShared(feed, options.shared) : ownSource(feed, options.read);
        return { ready: feed.ready, source, leave: () => this.#leave(options, feed, follower.wake) };
      },
    });
    return follower;
  }

  #join(channel: string, wake: () => void): Feed {
    let feed = this.#feeds.get(channel);
    if (!feed) {
      const ready = Promise.resolve(async () => {});
      const opened: Feed = { heads: {}, checks: 0, news: 0, followers: new Set(), ready, readers: new Map() };
      opened.ready = this.#bus.subscribe(channel, (message) => receive(opened, message));
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

function receive(feed: Feed, message: string): void {
  // only gateways publish on this channel, so its shape is trusted
  const notification = JSON.parse(message) as Notification;
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

/** Joins the shared reader of the stream, and makes it for the first follower. */
function followShared<T>(feed: Feed, shared: SharedStream<T> | SharedStream<T, string>): FollowerReader<T> {
  // Positions of one reader are all numbers or all texts: its key decides which.
  const stream = shared as unknown as SharedStream<T, Position>;
  const readers = feed.readers as unknown as Map<string, SharedReader<T, Position>>;
  let reader = readers.get(stream.key);
  if (!reader) readers.set(stream.key, (reader = new SharedReader(feed, stream, () => wakeAll(feed))));
  reader.followers++;
  return reader.follow(stream);
}

/** A follower with reads of its own, e.g. because the rows depend on the viewer. */
function ownSource<T>(feed: Feed, read: (first: boolean) => Promise<Reading<T>>): FollowerReader<T> {
  let hasNews = () => true;
  return {
    async read(first) {
      const { checks } = feed;
      // Copied before the read, which covers the rows up to these positions, also those that it may
      // not show yet.
      const announced = { ...feed.heads };
      liveFigures.reads.inc();
      const reading = await read(first);
      const seen = highest(reading.seen, announced);
      hasNews = () => isBeyond(feed.heads, seen) || feed.checks !== checks;
      return reading;
    },
    hasNews: () => hasNews(),
  };
}
