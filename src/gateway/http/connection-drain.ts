// Drain: a gateway that stops lets go of its connections one by one, spread over its time, so that their clients do not
// come back to the other gateways as a herd. Whoever does not go when asked is cut off, and the end is in time.
import { once } from 'node:events';
import type { Server } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

/** A connection that lasts: a websocket or an event stream. */
export type ConnectionDrain = {
  /** Asks the peer to go and to come back elsewhere. Called twice it does no more. */
  close(): void;
  /** Ends it without asking. */
  terminate(): void;
};

export type DrainOptions = {
  /** Milliseconds over which the closings are spread at most. */
  spreadMs: number;
  /** Milliseconds, from the beginning, after which stragglers are cut off; more than `spreadMs`. */
  endMs: number;
  /** Aborted by somebody who will not wait: all that is left is closed at once. */
  hurry: AbortSignal;
};

export type Drain = {
  /** Takes a connection up; the returned function says that it is gone. Calling that twice is fine. */
  add(connection: ConnectionDrain): () => void;
  /** Number of connections that are open. */
  readonly size: number;
  /** Ends all connections; resolves, with the number of those that were cut off, when no more is to be done. */
  run(options: DrainOptions): Promise<number>;
};

/** With few connections there is no herd: this much time for each is enough. */
const longestGapMs = 100;
/** A peer that is well answers a close within this time also when everybody hurries. */
const hurryMs = 500;
const idleCheckMs = 50;

export function createConnectionDrain(): Drain {
  const open = new Set<ConnectionDrain>();
  let emptied = () => {};
  return {
    add(connection) {
      open.add(connection);
      return () => {
        open.delete(connection);
        if (open.size === 0) emptied();
      };
    },
    get size() {
      return open.size;
    },
    async run({ spreadMs, endMs, hurry }) {
      const began = performance.now();
      const asked = shuffle([...open]);
      const plan = planClosings(asked.length, spreadMs);
      for (const [index, connection] of asked.entries()) {
        await pause(began + (plan[index] ?? 0) - performance.now(), hurry);
        if (open.has(connection)) connection.close();
      }
      for (const connection of open) connection.close(); // what came in at the last moment too
      const gone = new AbortController();
      emptied = () => gone.abort();
      if (open.size === 0) emptied();
      await pause(began + endMs - performance.now(), AbortSignal.any([hurry, gone.signal]));
      await pause(Math.min(hurryMs, began + endMs - performance.now()), gone.signal);
      const stragglers = [...open];
      for (const connection of stragglers) connection.terminate();
      return stragglers.length;
    },
  };
}

/**
 * When each of `count` closings is due, in milliseconds from the beginning, rising. Each falls at random into a slice of its
 * own, and all slices are as long: so no part of the time gets many more than its share.
 */
export function planClosings(count: number, spreadMs: number, random: () => number = Math.random): number[] {
  const sliceMs = Math.min(spreadMs / Math.max(1, count), longestGapMs);
  return Array.from({ length: count }, (_, index) => (index + random()) * sliceMs);
}

/** Which goes when has nothing to do with which came when: clients that came together do not leave together. */
function shuffle<T>(items: T[]): T[] {
  const keyed = items.map((item) => ({ item, key: Math.random() }));
  return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item);
}

/** Ends a server whose lasting connections are gone: requests in flight are answered if that takes no longer than this. */
export async function closeServer(server: Server, graceMs: number, hurry: AbortSignal): Promise<void> {
  const closed = new AbortController();
  const endAt = performance.now() + graceMs;
  const closing = once(server, 'close').then(() => closed.abort());
  server.close();
  // A connection whose request was in flight until now is kept for a next one, which nobody wants.
  const idle = setInterval(() => server.closeIdleConnections(), idleCheckMs);
  await pause(graceMs, AbortSignal.any([closed.signal, hurry]));
  await pause(Math.min(hurryMs, endAt - performance.now()), closed.signal);
  server.closeAllConnections();
  await closing;
  clearInterval(idle);
}

/** Resolves after the time, or at once when it is cut short. Less than a millisecond is none: timers know no less. */
async function pause(ms: number, short: AbortSignal): Promise<void> {
  if (ms >= 1 && !short.aborted) await sleep(ms, undefined, { signal: short }).catch(() => {});
}
