// The uplink inside of one process. An entry waits until it is taken, and is held until it is done;
// one that is held for too long is taken again, by another consumer.
import { EventEmitter, once } from 'node:events';
import { type Bus, requireFitting, type UplinkEntry } from './bus.ts';

type Arrived = { readonly entry: UplinkEntry; readonly arrivedAt: Date };
type Held = Arrived & { readonly holders: Set<string>; takenAt: number };

export class MemoryUplink {
  readonly #idleMs: number;
  readonly #arrivals = new EventEmitter().setMaxListeners(0);
  readonly #waiting: Arrived[] = [];
  readonly #held = new Map<string, Held>(); // by id of the entry
  #nextId = 1;

  /** After `idleMs` another consumer may take an entry that is held. */
  constructor(idleMs: number) {
    this.#idleMs = idleMs;
  }

  append(stream: number, batch: string): void {
    requireFitting(batch);
    const entry = { stream, id: `${this.#nextId++}`, batch: Buffer.from(batch) };
    this.#waiting.push({ entry, arrivedAt: new Date() });
    this.#arrivals.emit('entry');
  }

  async take(consumer: string, { max, blockMs, signal }: Parameters<Bus['take']>[1]): Promise<UplinkEntry[]> {
    if (signal.aborted) return [];
    const idle = this.#takeIdle(consumer, max);
    if (this.#waiting.length === 0 && idle.length === 0) {
      const late = new AbortController();
      const timer = setTimeout(() => late.abort(), blockMs);
      await once(this.#arrivals, 'entry', { signal: AbortSignal.any([signal, late.signal]) }).catch(() => {});
      clearTimeout(timer);
      if (signal.aborted) return []; // entries that came meanwhile stay for the next call
    }
    return [...idle, ...this.#takeWaiting(consumer, max - idle.length)];
  }

  done(entries: readonly UplinkEntry[]): void {
    for (const { id } of entries) this.#held.delete(id);
  }

  oldest(): Date | null {
    const times = [...this.#held.values(), ...this.#waiting].map(({ arrivedAt }) => arrivedAt.getTime());
    return times.length === 0 ? null : new Date(times.reduce((one, other) => Math.min(one, other)));
  }

  close(): void {
    this.#waiting.length = 0;
    this.#held.clear();
    this.#arrivals.emit('entry');
  }

  #takeIdle(consumer: string, max: number): UplinkEntry[] {
    const before = performance.now() - this.#idleMs;
    const idle = [...this.#held.values()].filter(({ holders, takenAt }) => takenAt <= before && !holders.has(consumer));
    return idle.slice(0, max).map((item) => {
      item.holders.add(consumer);
      item.takenAt = performance.now();
      return item.entry;
    });
  }

  #takeWaiting(consumer: string, max: number): UplinkEntry[] {
    return this.#waiting.splice(0, max).map((item) => {
      this.#held.set(item.entry.id, { ...item, holders: new Set([consumer]), takenAt: performance.now() });
      return item.entry;
    });
  }
}
