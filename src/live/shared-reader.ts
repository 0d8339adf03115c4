// SharedReader reads the database once for all followers that ask the same question about one
// channel. Its ring keeps the newest slices of the stream in memory, and equal reads in flight are
// one. Followers that get the same slice get the same object, so that the GraphQL execution of a
// slice can be kept with it and happens once.
import { liveFigures } from '../metrics-registry.ts';
import type { Notification, StreamPositions } from './commit.ts';
import { markFed } from './lag.ts';
import { highest, isBeyond } from './positions.ts';
import { SingleFlight } from './single-flight.ts';

/** Where a follower is in its stream: a number, or a text whose order is that of the stream. */
export type Position = number | string;

/** The part of a stream between two positions. */
export type StreamSlice<T, P extends Position = number> = {
  /**
   * Value for subscribers. Present even when no row was read, because a stream always sends a first
   * and a last value.
   */
  value: T;
  /** True when no row was read. */
  empty: boolean;
  /** Where the slice ends. */
  position: P;
  /** Positions that the read has covered. A notification beyond one of them means that there are unread rows. */
  seen: StreamPositions;
  /** True when the next read finds rows at once. */
  more: boolean;
  /**
   * True when rows exist that may be read only later, e.g. above the horizon of open transactions.
   * No notification tells when, so the reader looks again after a pause.
   */
  pending?: boolean;
  /** True when the stream has ended and this is its last slice. */
  done: boolean;
  /** Estimated memory of `value`, in bytes. */
  sizeBytes: number;
  /** Time of the newest row, in milliseconds since the Unix epoch. */
  time?: number;
};

/**
 * A stream whose rows have positions that only grow. Two reads from one position give the same rows, or the later read
 * gives newer states of them.
 */
export type SharedStream<T, P extends Position = number> = {
  /**
   * Identifies everything that a read depends on, beside channel and position. Never contains the
   * viewer: viewers share reads.
   */
  key: string;
  /** Position after which the first read begins. */
  start: P;
  /** Replaces the first read, e.g. to get the last rows of each kind. `key` identifies what it depends on. */
  open?: { key: string; read(): Promise<StreamSlice<T, P>> };
  /** Reads the rows after a position, up to `to` when it is given. `more` says that rows lie beyond. */
  read(after: P, to: P | null): Promise<StreamSlice<T, P>>;
  /**
   * Returns the rows that a notification carries itself; null unless it carries every row between
   * `after` and its head.
   */
  fromNotification?: (notification: Notification, after: P) => StreamSlice<T, P> | null;
  /** Upper bound of the ring, in bytes. The newest slice is always kept. */
  ringBytes?: number;
};

/**
 * State of the channel to which the reader belongs. `heads`: highest positions in its messages.
 * `checks`: counts the rounds in which all followers look into the database. `news`: counts every
 * change of the other two.
 */
export type ChannelState = { readonly heads: StreamPositions; readonly checks: number; readonly news: number };

/** One follower's cursor over a shared reader. */
export type FollowerReader<T> = {
  /**
   * Returns the next part of the stream; at once, without a promise, when other followers have read
   * it already.
   */
  read(first: boolean): Reading<T> | Promise<Reading<T>>;
  /** Whether another read would find rows. */
  hasNews(): boolean;
};

/** Result of one read of a follower. */
export type Reading<T> = {
  /** Value to send; null when there is nothing new. */
  value: T | null;
  /** Positions that the read has covered. */
  seen: StreamPositions;
  /** True when the next read finds rows at once. */
  more: boolean;
  /** True when the stream has ended and was read to its end. */
  done: boolean;
};

const defaultRingBytes = 512 * 1024;
const maxSlices = 256;
const nothing: Reading<never> = { value: null, seen: {}, more: false, done: false };
const [firstPauseMs, longestPauseMs] = [20, 320];

export class SharedReader<T, P extends Position = number> {
  followers = 0;
  readonly #channel: ChannelState;
  readonly #wakeAll: () => void;
  readonly #stream: SharedStream<T, P>;
  /**
   * Slices by the position after which they begin. Each begins where the one before it ends; the
   * newest ends at `#tail`.
   */
  readonly #ring = new Map<P, StreamSlice<T, P>>();
  readonly #reads = new SingleFlight<StreamSlice<T, P>>();
  #ringBytes = 0;
  /** Position up to which the stream has been read; null until a read found its end. */
  #tail: P | null = null;
  /** Positions covered by the last read at the tail. */
  #seen: StreamPositions = {};
  /** `#channel.checks` when that read began. A higher number there calls for another read. */
  #checks = -1;
  /** Whether that read left rows behind. */
  #more = false;
  /**
   * `#channel.news` when `#isStale()` last found no unread rows. −1 when `#seen` may have moved back:
   * the next call looks again.
   */
  #settledAt = -1;
  /** The slice with which the stream ended, and the position after which it begins. */
  #last: { from: P; slice: StreamSlice<T, P> } | null = null;
  /** Pause before followers read pending rows, which no notification announces. Doubles from 20 to 320 ms. */
  #pauseMs = 0;
  #timer: NodeJS.Timeout | undefined;
  /** True once that pause is over: the next follower reads the database. */
  #overdue = false;
  /** The newest slice without rows, so that followers without news share one object. */
  #nothing: { position: P; slice: StreamSlice<T, P> } | null = null;

  constructor(channel: ChannelState, stream: SharedStream<T, P>, wakeAll: () => void) {
    this.#channel = channel;
    this.#stream = stream;
    this.#wakeAll = wakeAll;
  }

  /**
   * Adds a follower. It reads history from the database until it reaches the tail, then takes slices from the ring. A
   * follower that is slower than the ring reads from the database again.
   */
  follow({ start, open }: SharedStream<T, P>): FollowerReader<T> {
    let position = start;
    let joined = false;
    let caughtUp = false;
    const take = ({ value, empty, position: end, seen, more, done }: StreamSlice<T, P>, first: boolean): Reading<T> => {
      position = end;
      joined = position === this.#tail || this.#ring.has(position);
      const news = first || done || !empty || caughtUp !== !more;
      caughtUp = !more;
      return { value: news ? value : null, seen, more: more || position !== this.#tail, done };
    };
    const readOn = async (first: boolean): Promise<Reading<T>> => {
      if (first && open) return take(await this.#reads.fresh(open.key, open.read), first);
      await this.#leadTo(position);
      const to = this.#tail !== null && position < this.#tail ? this.#tail : null;
      return take(await this.#read(position, to, first), first);
    };
    return {
      read: (first) => {
        if (!joined || first) return readOn(first);
        const shared = this.#after(position);
        if (shared) {
          liveFigures.ringHits.inc();
          return take(shared, first);
        }
        if (position !== this.#tail) liveFigures.demotions.inc();
        else if (!this.#isStale()) return nothing;
        return readOn(first);
      },
      hasNews: () => position !== this.#tail || this.#isStale() || this.#after(position) !== undefined,
    };
  }

  /** Appends the rows that a notification carries when they continue the tail. That saves the read. */
  hear(notification: Notification): void {
    if (this.#tail === null || this.#more || this.#last) return;
    const slice = this.#stream.fromNotification?.(notification, this.#tail);
    if (!slice) return;
    this.#push(this.#tail, slice);
    this.#seen = highest(this.#seen, slice.seen);
    liveFigures.appends.inc();
  }

  #after(position: P): StreamSlice<T, P> | undefined {
    return this.#ring.get(position) ?? (this.#last?.from === position ? this.#last.slice : undefined);
  }

  /**
   * Whether unread rows may lie beyond the tail. All followers ask, so `#settledAt` keeps a "no"
   * until `#channel.news` changes.
   */
  #isStale(): boolean {
    if (this.#overdue) return true;
    if (this.#settledAt === this.#channel.news) return false;
    const stale = this.#more || this.#checks !== this.#channel.checks || isBeyond(this.#channel.heads, this.#seen);
    if (!stale) this.#settledAt = this.#channel.news;
    return stale;
  }

  /**
   * Prepares a read from `position`. When that is ahead of the tail, it waits for the read in
   * flight at the tail; without one, `position` becomes the tail and the ring starts anew.
   */
  async #leadTo(position: P): Promise<void> {
    while (this.#tail !== null && position > this.#tail) {
      const reading = this.#reads.running(`${this.#tail}:${null}`);
      if (reading) {
        await reading.catch(() => {});
        continue;
      }
      this.#ring.clear();
      this.#ringBytes = 0;
      this.#tail = position;
      this.#checks = -1;
      this.#settledAt = -1;
    }
  }

  #read(from: P, to: P | null, fresh: boolean): Promise<StreamSlice<T, P>> {
    const read = () => this.#readNow(from, to);
    return fresh ? this.#reads.fresh(`${from}:${to}`, read) : this.#reads.join(`${from}:${to}`, read);
  }

  async #readNow(from: P, to: P | null): Promise<StreamSlice<T, P>> {
    const { checks } = this.#channel;
    // Copied before the read begins, so that the read covers the rows up to these positions.
    const announced = { ...this.#channel.heads };
    const slice = await this.#stream.read(from, to);
    return this.#take(from, { ...slice, seen: highest(slice.seen, announced) }, { checks, announced });
  }

  /**
   * Puts a slice that was read into the ring and returns it. When another read has put one there
   * that reaches as far, that one is returned. `before` is the state of the channel before the
   * read.
   */
  #take(from: P, slice: StreamSlice<T, P>, before: { checks: number; announced: StreamPositions }): StreamSlice<T, P> {
    const kept = this.#ring.get(from);
    if (kept && kept.position >= slice.position) return kept;
    if (this.#tail === null && !slice.more) this.#tail = slice.position;
    else if (from === this.#tail) {
      if (slice.position > from) {
        if (this.#checks !== before.checks && !isBeyond(before.announced, this.#seen)) liveFigures.healed.inc();
        this.#push(from, slice);
        this.#wakeAll();
      }
    } else return slice;
    this.#seen = slice.seen;
    this.#checks = before.checks;
    this.#more = slice.more;
    this.#settledAt = -1;
    this.#lookAgain(slice.pending ?? false);
    if (slice.done) {
      this.#last = { from, slice };
      this.#wakeAll();
    } else if (slice.empty && slice.position === from) {
      if (this.#nothing?.position === from) return this.#nothing.slice;
      this.#nothing = { position: from, slice };
    }
    return slice;
  }

  #lookAgain(pending: boolean): void {
    clearTimeout(this.#timer);
    this.#overdue = false;
    this.#pauseMs = pending ? Math.min(longestPauseMs, Math.max(firstPauseMs, this.#pauseMs * 2)) : 0;
    if (!pending) return;
    this.#timer = setTimeout(() => {
      this.#overdue = true;
      this.#wakeAll();
    }, this.#pauseMs).unref();
  }

  #push(from: P, slice: StreamSlice<T, P>): void {
    const { ringBytes = defaultRingBytes } = this.#stream;
    this.#ring.set(from, slice);
    this.#ringBytes += slice.sizeBytes;
    this.#tail = slice.position;
    for (const [oldest, { sizeBytes }] of this.#ring) {
      const fits = this.#ringBytes <= ringBytes && this.#ring.size <= maxSlices;
      if (fits || this.#ring.size === 1) break;
      this.#ring.delete(oldest);
      this.#ringBytes -= sizeBytes;
    }
    if (slice.time !== undefined) markFed(slice.value, slice.time);
  }
}
