// Identical readings at a time are one. Nothing is kept beyond the flight: this is no cache.
import { liveFigures } from '../metrics-registry.ts';

type Flight<T> = { running: Promise<T>; next?: Promise<T> };

export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>();

  /** The reading that is under way; undefined for none. */
  running(key: string): Promise<T> | undefined {
    return this.#flights.get(key)?.running;
  }

  /** Joins a reading that is under way, else starts one. The key stands for all that `read` depends on. */
  join(key: string, read: () => Promise<T>): Promise<T> {
    return this.running(key) ?? this.#start(key, read);
  }

  /**
   * A reading that begins after now, so that it sees what is committed by now: all who come while one is under way wait
   * for the one after it.
   */
  fresh(key: string, read: () => Promise<T>): Promise<T> {
    const flight = this.#flights.get(key);
    if (!flight) return this.#start(key, read);
    return (flight.next ??= flight.running.then(ignore, ignore).then(() => this.join(key, read)));
  }

  #start(key: string, read: () => Promise<T>): Promise<T> {
    liveFigures.reads.inc();
    const running = read().finally(() => {
      if (this.running(key) === running) this.#flights.delete(key);
    });
    this.#flights.set(key, { running });
    return running;
  }
}

function ignore(): void {}
