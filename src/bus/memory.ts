// The bus inside of one process: for `dev`, `demo` and tests. Same contract as any other adapter, down to messages that
// arrive after the call that sent them, and uplink entries that come again unless they are done with.
import { EventEmitter, once } from 'node:events';
import type { Bus, UplinkEntry } from './bus.ts';

export function memoryBus(): Bus {
  const messages = new EventEmitter({ captureRejections: false });
  messages.setMaxListeners(0);
  const arrivals = new EventEmitter();
  arrivals.setMaxListeners(0);
  const waiting: UplinkEntry[] = [];
  const held = new Map<string, UplinkEntry[]>(); // by consumer
  let nextId = 1;
  let closed = false;
  const requireOpen = () => {
    if (closed) throw new Error('The bus is closed.');
  };

  return {
    async publish(channel, message) {
      requireOpen();
      // Later, as over a network: the sender's stack is not the listener's.
      setImmediate(() => messages.emit(`channel:${channel}`, message.toString()));
    },
    async subscribe(channel, listener) {
      requireOpen();
      messages.on(`channel:${channel}`, listener);
      return async () => void messages.off(`channel:${channel}`, listener);
    },
    onBreak: () => () => {}, // no connection that could break
    async append(stream, batch) {
      requireOpen();
      waiting.push({ stream, id: `${nextId++}`, batch: Buffer.from(batch) });
      arrivals.emit('entry');
    },
    async take(consumer, { max, blockMs, signal }) {
      requireOpen();
      const again = held.get(consumer);
      if (again?.length) return again.slice(0, max);
      if (waiting.length === 0) {
        const late = new AbortController();
        const timer = setTimeout(() => late.abort(), blockMs);
        await once(arrivals, 'entry', { signal: AbortSignal.any([signal, late.signal]) }).catch(() => {});
        clearTimeout(timer);
      }
      const taken = waiting.splice(0, max);
      held.set(consumer, taken);
      return taken;
    },
    async done(entries) {
      const ids = new Set(entries.map((entry) => entry.id));
      for (const [consumer, taken] of held) {
        held.set(
          consumer,
          taken.filter((entry) => !ids.has(entry.id)),
        );
      }
    },
    async ping() {
      requireOpen();
    },
    async close() {
      closed = true;
      messages.removeAllListeners();
      waiting.length = 0;
      arrivals.emit('entry');
    },
  };
}
