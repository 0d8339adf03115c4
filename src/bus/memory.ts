// The bus inside of one process, for `dev`, `demo` and tests. It keeps the whole contract: messages
// arrive after the call that sent them, and uplink entries stay until they are done.
import { EventEmitter, once } from 'node:events';
import { type Bus, defaultIdleMs, requireFitting, type UplinkEntry } from './bus.ts';

type Arrived = { readonly entry: UplinkEntry; readonly arrivedAt: Date };
type Held = Arrived & { readonly holders: Set<string>; takenAt: number };

export function memoryBus({ idleMs = defaultIdleMs }: { idleMs?: number } = {}): Bus {
  const messages = new EventEmitter({ captureRejections: false });
  messages.setMaxListeners(0);
  const arrivals = new EventEmitter();
  arrivals.setMaxListeners(0);
  const waiting: Arrived[] = [];
  const held = new Map<string, Held>(); // by id of the entry
  let nextId = 1;
  let closed = false;
  const requireOpen = () => {
    if (closed) throw new Error('The bus is closed.');
  };
  const takeIdle = (consumer: string, max: number) => {
    const before = performance.now() - idleMs;
    const idle = [...held.values()].filter(({ holders, takenAt }) => takenAt <= before && !holders.has(consumer));
    return idle.slice(0, max).map((item) => {
      item.holders.add(consumer);
      item.takenAt = performance.now();
      return item.entry;
    });
  };
  const takeWaiting = (consumer: string, max: number) =>
    waiting.splice(0, max).map((item) => {
      held.set(item.entry.id, { ...item, holders: new Set([consumer]), takenAt: performance.now() });
      return item.entry;
    });

  return {
    async publish(channel, message) {
      requireOpen();
      // A listener is called later, as over a network: not in the stack of the sender.
      setImmediate(() => messages.emit(`channel:${channel}`, message.toString()));
    },
    async subscribe(channel, listener) {
      requireOpen();
      messages.on(`channel:${channel}`, listener);
      return async () => void messages.off(`channel:${channel}`, listener);
    },
    onBreak: () => () => {}, // there is no connection that could break
    async append(stream, batch) {
      requireOpen();
      requireFitting(batch);
      waiting.push({ entry: { stream, id: `${nextId++}`, batch: Buffer.from(batch) }, arrivedAt: new Date() });
      arrivals.emit('entry');
    },
    async take(consumer, { max, blockMs, signal }) {
      requireOpen();
      if (signal.aborted) return [];
      const idle = takeIdle(consumer, max);
      if (waiting.length === 0 && idle.length === 0) {
        const late = new AbortController();
        const timer = setTimeout(() => late.abort(), blockMs);
        await once(arrivals, 'entry', { signal: AbortSignal.any([signal, late.signal]) }).catch(() => {});
        clearTimeout(timer);
        if (signal.aborted) return []; // entries that came meanwhile stay for the next call
      }
      return [...idle, ...takeWaiting(consumer, max - idle.length)];
    },
    async done(entries) {
      for (const { id } of entries) held.delete(id);
    },
    async oldest() {
      const times = [...held.values(), ...waiting].map(({ arrivedAt }) => arrivedAt.getTime());
      return times.length === 0 ? null : new Date(times.reduce((one, other) => Math.min(one, other)));
    },
    async probe() {
      requireOpen();
    },
    async ping() {
      requireOpen();
    },
    async close() {
      closed = true;
      messages.removeAllListeners();
      waiting.length = 0;
      held.clear();
      arrivals.emit('entry');
    },
  };
}
