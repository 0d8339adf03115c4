// SingleFlight makes equal reads that run at the same time one. It keeps no result once the read
// has ended: it is no cache.
import { liveFigures } from '../metrics-registry.ts';

/** The read that runs now, and the one that begins after it. */
type Flight<T> = { running: Promise<T>; next?: Promise<T> };

export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>();

  /** The read of this key that runs now; undefined for none. */
  running(key: string): Promise<T> | undefined {
    return this.#flights.get(key)?.running;
  }

  /**
   * Joins the read of this key that runs now, else starts `read`. The key stands for all that
   * `read` depends on.
   */
  join(key: string, read: () => Promise<T>): Promise<T> {
    return this.running(key) ?? this.#start(key, read);
  }

  /**
   * Returns a read that begins after this call, so that it sees everything committed before.
   * Callers that come while a read runs share one more read after it.
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
