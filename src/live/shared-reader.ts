// A shared reader: one reading for all followers that ask the same of one topic. Its ring holds the newest slices of their
// stream; several who would read the same wait for one reading. Followers that are given the same slice are given the
// same object, so that whoever works on it for them can work once.
import { liveFigures } from '../metrics-registry.ts';
import type { StreamPositions, Notification } from './commit.ts';
import { SingleFlight } from './single-flight.ts';
import { markFed } from './lag.ts';

/** Where a follower is in its stream: a number, or a text whose order is that of the stream. */
export type Position = number | string;

/** What lies in a stream after one position, up to another. */
export type StreamSlice<T, P extends Position = number> = {
  /** Made even when it holds nothing: a first value and a last one are sent in any case. */
  value: T;
  /** There is nothing in `value`. */
  empty: boolean;
  /** Where the slice ends. */
  position: P;
  /** The heads that the reading has seen: only what goes beyond one of them is news. */
  seen: StreamPositions;
  /** More can be read at once. */
  more: boolean;
  /** There are rows that only a later reading may read, whatever is heard. */
  pending?: boolean;
  /** The stream has ended, and this is the last of it. */
  done: boolean;
  /** About how much memory the value takes. */
  sizeBytes: number;
  /** When its newest row was made, in milliseconds since the Unix epoch. */
  time?: number;
};

/**
 * A stream whose rows have positions that only grow: any two readings from one position say the same, or the later one
 * says it of newer states.
 */
export type SharedStream<T, P extends Position = number> = {
  /** Names all that a reading depends on beside the topic and the position. It holds nothing of who reads. */
  key: string;
  /** The first reading begins after this position. */
  start: P;
  /** Takes the place of the first reading, e.g. for the last rows of each kind; its key names what it depends on. */
  open?: { key: string; read(): Promise<StreamSlice<T, P>> };
  /** What comes after a position, up to `to` where one is given, and to it when nothing more lies before it; `more` when there is anything beyond. */
  read(after: P, to: P | null): Promise<StreamSlice<T, P>>;
  /** What a notification itself says of the rows after a position; null unless it says all of them up to its head. */
  fromNotification?: (notification: Notification, after: P) => StreamSlice<T, P> | null;
  /** About how much the ring may hold; always the newest slice. */
  ringBytes?: number;
};

/** What a shared reader knows of its topic. `news` counts whatever changed the others. */
export type TopicState = { readonly heads: StreamPositions; readonly checks: number; readonly news: number };

/** One follower's way of reading. */
export type FollowerReader<T> = {
  /** At once, without a promise, what was read already for others. */
  read(first: boolean): Reading<T> | Promise<Reading<T>>;
  /** Whether another reading would find anything. */
  hasNews(): boolean;
};

/** What a reader found after its position. */
export type Reading<T> = {
  /** What to send; null for nothing new. */
  value: T | null;
  /** The heads that this reading has seen: only what goes beyond one of them is news. */
  seen: StreamPositions;
  /** More can be read at once. */
  more: boolean;
  /** The stream has ended and all of it was read. */
  done: boolean;
};

const defaultRingBytes = 512 * 1024;
const maxSlices = 256;
const nothing: Reading<never> = { value: null, seen: {}, more: false, done: false };
const [firstPauseMs, longestPauseMs] = [20, 320];

export class SharedReader<T, P extends Position = number> {
  followers = 0;
  readonly #topic: TopicState;
  readonly #wakeAll: () => void;
  readonly #stream: SharedStream<T, P>;
  /** By where each begins; each begins where the one before it ends, and the last ends at the tail. */
  readonly #ring = new Map<P, StreamSlice<T, P>>();
  readonly #reads = new SingleFlight<StreamSlice<T, P>>();
  #ringBytes = 0;
  #tail: P | null = null;
  /** What was known when the tail was last looked at. */
  #seen: StreamPositions = {};
  #checks = -1;
  #more = false;
  /** The news at which nothing was left to be read; unsettled by whatever takes back what was seen. */
  #settledAt = -1;
  #last: { from: P; slice: StreamSlice<T, P> } | null = null;
  /** What is pending is told by nobody: all look again after a pause, which grows from one time to the next. */
  #pauseMs = 0;
  #timer: NodeJS.Timeout | undefined;
  #overdue = false;
  #nothing: { position: P; slice: StreamSlice<T, P> } | null = null;

  constructor(topic: TopicState, stream: SharedStream<T, P>, wakeAll: () => void) {
    this.#topic = topic;
    this.#stream = stream;
    this.#wakeAll = wakeAll;
  }

  /**
   * A follower: it reads history for itself until it reaches the tail, then takes from the ring; when it is so late that
   * the ring has moved on, it reads history again.
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

  /** Appends what a message says, when it goes on from the tail: nobody needs to read it then. */
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

  /** Asked by every follower, found out once: what was seen and the news settle it. */
  #isStale(): boolean {
    if (this.#overdue) return true;
    if (this.#settledAt === this.#topic.news) return false;
    const stale = this.#more || this.#checks !== this.#topic.checks || isBeyond(this.#topic.heads, this.#seen);
    if (!stale) this.#settledAt = this.#topic.news;
    return stale;
  }

  /** A follower that is ahead of the tail waits for who is reading there, or else makes its own position the tail. */
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
    const { checks } = this.#topic;
    const heard = { ...this.#topic.heads }; // of this the reading knows, even where it may not read it yet
    const found = await this.#stream.read(from, to);
    return this.#take(from, { ...found, seen: highest(found.seen, heard) }, { checks, heard });
  }

  /** Puts what was read where others find it. What another has put there before is taken in its place. */
  #take(from: P, found: StreamSlice<T, P>, at: { checks: number; heard: StreamPositions }): StreamSlice<T, P> {
    const known = this.#ring.get(from);
    if (known && known.position >= found.position) return known;
    if (this.#tail === null && !found.more) this.#tail = found.position;
    else if (from === this.#tail) {
      if (found.position > from) {
        if (this.#checks !== at.checks && !isBeyond(at.heard, this.#seen)) liveFigures.healed.inc();
        this.#push(from, found);
        this.#wakeAll();
      }
    } else return found;
    this.#seen = found.seen;
    this.#checks = at.checks;
    this.#more = found.more;
    this.#settledAt = -1;
    this.#lookAgain(found.pending ?? false);
    if (found.done) {
      this.#last = { from, slice: found };
      this.#wakeAll();
    } else if (found.empty && found.position === from) {
      if (this.#nothing?.position === from) return this.#nothing.slice;
      this.#nothing = { position: from, slice: found };
    }
    return found;
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

/** The higher of each head that is looked at. */
export function highest(seen: StreamPositions, heard: StreamPositions): StreamPositions {
  return Object.fromEntries(Object.entries(seen).map(([name, head]) => [name, Math.max(head, heard[name] ?? 0)]));
}

/** Whether a head has gone beyond what was seen of it. */
export function isBeyond(heads: StreamPositions, seen: StreamPositions): boolean {
  for (const name in seen) if ((heads[name] ?? 0) > (seen[name] ?? 0)) return true;
  return false;
}
