// Drain: a gateway that stops closes its lasting connections one by one, spread over time, so that
// their clients do not reconnect to the other gateways all at once. A connection that does not
// close when asked is cut off, so that the end comes in time.
import { once } from 'node:events';
import type { Server } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

/** A connection that lasts: a websocket or an event stream. */
export type LastingConnection = {
  /** Asks the peer to close and to reconnect elsewhere. A second call does nothing. */
  close(): void;
  /** Ends the connection without asking. */
  terminate(): void;
};

export type DrainOptions = {
  /** Upper bound of the time over which the closings are spread, in milliseconds. */
  spreadMs: number;
  /**
   * Milliseconds from the beginning after which open connections are cut off; more than `spreadMs`.
   */
  endMs: number;
  /** Aborted when the operator will not wait, e.g. by a second signal: all is closed at once. */
  hurry: AbortSignal;
};

export type Drain = {
  /**
   * Adds a connection. The returned function removes it when it has closed; calling it twice is
   * fine.
   */
  add(connection: LastingConnection): () => void;
  /** Number of connections that are open. */
  readonly size: number;
  /** Ends all connections. Resolves to the number of those that were cut off. */
  run(options: DrainOptions): Promise<number>;
};

/**
 * Longest pause between two closings: few connections make no herd, so they need not use all of the
 * time.
 */
const longestGapMs = 100;
/** Time that a healthy peer needs to answer a close, granted even with `hurry`. */
const hurryMs = 500;
const idleCheckMs = 50;

export function createConnectionDrain(): Drain {
  const open = new Set<LastingConnection>();
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
      const connections = shuffle([...open]);
      const plan = planClosings(connections.length, spreadMs);
      for (const [index, connection] of connections.entries()) {
        await pause(began + (plan[index] ?? 0) - performance.now(), hurry);
        if (open.has(connection)) connection.close();
      }
      for (const connection of open) connection.close(); // connections that came meanwhile, too
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
 * Times of `count` closings, in milliseconds from the beginning, rising. The time is cut into
 * `count` equal slices, and each closing falls at random into its own: no part of the time gets
 * many more than its share.
 */
export function planClosings(count: number, spreadMs: number, random: () => number = Math.random): number[] {
  const sliceMs = Math.min(spreadMs / Math.max(1, count), longestGapMs);
  return Array.from({ length: count }, (_, index) => (index + random()) * sliceMs);
}

/** Random order: clients that connected together do not leave together. */
function shuffle<T>(items: T[]): T[] {
  const keyed = items.map((item) => ({ item, key: Math.random() }));
  return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item);
}

/**
 * Ends a server whose lasting connections are gone. Requests in flight are still answered, for at
 * most `graceMs`.
 */
export async function closeServer(server: Server, graceMs: number, hurry: AbortSignal): Promise<void> {
  const closed = new AbortController();
  const endAt = performance.now() + graceMs;
  const closing = once(server, 'close').then(() => closed.abort());
  server.close();
  // Node keeps a connection open for a next request once its request is answered: those are closed
  // here.
  const idle = setInterval(() => server.closeIdleConnections(), idleCheckMs);
  await pause(graceMs, AbortSignal.any([closed.signal, hurry]));
  await pause(Math.min(hurryMs, endAt - performance.now()), closed.signal);
  server.closeAllConnections();
  await closing;
  clearInterval(idle);
}

/**
 * Resolves after `ms`, or at once when `short` is aborted. Timers cannot measure less than a
 * millisecond, so less is no pause.
 */
async function pause(ms: number, short: AbortSignal): Promise<void> {
  if (ms >= 1 && !short.aborted) await sleep(ms, undefined, { signal: short }).catch(() => {});
}
