// The reader takes batches from the uplink, stores them in groups, and tells the bus that they are
// done. A batch that cannot be stored goes into quarantine, so that it delays no other. While no
// batch can be stored, none is read.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bus, UplinkEntry } from '../bus/bus.ts';
import { isPassing } from '../database/database.ts';
import { intakeFigures } from '../metrics-registry.ts';
import { decodeBatch } from '../protocol/record.ts';
import type { BatchStore, HeldBatch } from './batches.ts';
import type { Health } from './health.ts';
import type { Quarantine } from './quarantine.ts';

type WaitingBatch = HeldBatch & {
  /** `BatchStore.commits` at its first failure; undefined before. */
  failedAt?: number;
};

const entriesPerCommit = 32;
/** Longest time that one turn waits for batches. */
export const blockMs = 1_000;
const [firstPauseMs, longestPauseMs] = [500, 5_000];

export type ReaderOptions = {
  bus: Bus;
  batches: BatchStore;
  quarantine: Quarantine;
  health: Health;
  /** Called with the first failure of an outage. */
  report(error: unknown): void;
};

export class UplinkReader {
  readonly #options: ReaderOptions;
  readonly #name = randomUUID();
  /** Batches that are read and not stored, in the order in which they came. */
  #waiting: WaitingBatch[] = [];
  /**
   * Entries that are stored, or that their runners will send again, and that the bus still holds.
   */
  readonly #ended: UplinkEntry[] = [];
  /**
   * Number of batches that share the next transaction: one after a failure, then twice as many each
   * time, up to 32.
   */
  #groupSize = entriesPerCommit;

  constructor(options: ReaderOptions) {
    this.#options = options;
  }

  /** Lets the bus forget an entry, with the next turn. */
  end(entry: UplinkEntry): void {
    this.#ended.push(entry);
  }

  /** Reads and stores until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { quarantine, health, report } = this.#options;
    let failures = 0;
    while (!signal.aborted) {
      try {
        if (quarantine.broken === null) {
          await this.#turn(signal);
          failures = 0;
          continue;
        }
        health.interrupt();
      } catch (error) {
        health.interrupt();
        if (signal.aborted) return;
        if (failures === 0) report(error); // only the first of an outage
        failures++;
      }
      const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.max(0, failures - 1));
      await sleep(pauseMs, undefined, { signal }).catch(() => {});
    }
  }

  async #turn(signal: AbortSignal): Promise<void> {
    const { bus, health } = this.#options;
    const room = entriesPerCommit - this.#waiting.length;
    const limits = { max: room, blockMs: this.#waiting.length > 0 ? 0 : blockMs, signal };
    const entries = room > 0 ? await bus.take(this.#name, limits) : [];
    this.#receive(entries);
    await this.#storeNext();
    const done = this.#ended.splice(0);
    await bus.done(done).catch((error: unknown) => {
      this.#ended.push(...done);
      throw error;
    });
    health.endTurn(this.#waiting.length === 0 && entries.length < entriesPerCommit);
  }

  #receive(entries: readonly UplinkEntry[]): void {
    const { batches, quarantine } = this.#options;
    for (const entry of entries) {
      const batch = decodeBatch(entry.batch);
      if (!batch) {
        batches.counts.damaged++;
        intakeFigures.damaged.inc();
        this.end(entry);
      } else if (quarantine.isFor(batch.attemptId)) quarantine.add({ entry, batch });
      else this.#waiting.push({ entry, batch });
    }
  }

  async #storeNext(): Promise<void> {
    const { batches } = this.#options;
    const group = this.#waiting.slice(0, this.#groupSize);
    if (group.length === 0) return;
    try {
      batches.tell(await batches.store(group.map(({ batch }) => batch)));
    } catch (error) {
      this.#groupSize = 1;
      const [first] = group;
      if (group.length === 1 && first) this.#setBack(first, error);
      for (const held of group) held.failedAt ??= batches.commits;
      if (isPassing(error)) throw error;
      return; // the next turns try each batch alone, without a pause
    }
    this.#waiting.splice(0, group.length);
    this.#ended.push(...group.map(({ entry }) => entry));
    this.#groupSize = Math.min(entriesPerCommit, this.#groupSize * 2);
  }

  /**
   * Handles a batch that failed alone in its transaction. After a passing fault it lets other
   * attempts go first. It goes into quarantine when the fault is its own: another kind of error, or
   * others were stored since its first failure.
   */
  #setBack({ batch, failedAt }: WaitingBatch, error: unknown): void {
    const { batches, quarantine } = this.#options;
    // Batches of one attempt stay in their order.
    const same = this.#waiting.filter((held) => held.batch.attemptId === batch.attemptId);
    const others = this.#waiting.filter((held) => held.batch.attemptId !== batch.attemptId);
    const othersStored = failedAt !== undefined && batches.commits > failedAt;
    if (isPassing(error) && !othersStored) this.#waiting = [...others, ...same];
    else {
      this.#waiting = others;
      for (const held of same) quarantine.add(held);
    }
  }
}
