// The quarantine tries batches that could not be stored, one attempt after the other, beside the
// normal intake: first whole, then in halves, down to the record that fails. That record is refused
// (kept in `refused_record`), and the records behind it are stored.
import { setTimeout as sleep } from 'node:timers/promises';
import { isPassing } from '../database/database.ts';
import { intakeBroken } from '../metrics-registry.ts';
import type { Store } from '../live/commit.ts';
import { type DecodedBatch, parseRecord, type RunnerRecord } from '../protocol/record.ts';
import { type BatchStore, halvesOf, type HeldBatch } from './batches.ts';
import { runControl } from './control.ts';
import type { PendingAck } from './intake.ts';
import { reasonOf } from './refuse.ts';

type Case = HeldBatch & {
  /** Passing faults (e.g. a lost connection) that happened while other batches were stored. */
  failures: number;
  /** Time of the next try, by `performance.now()`. */
  dueAt: number;
  /** `BatchStore.commits` at its last failure. */
  commits: number;
};

/**
 * A batch that fails this often with a passing fault, while others are stored, counts as the cause:
 * its failing records are refused.
 */
const mostFailures = 10;
/**
 * Time after a refused record in which batches of the attempt go straight into quarantine. In the
 * normal intake a failure would make each batch of the group a transaction of its own.
 */
const suspectMs = 60_000;
/**
 * Longest pause between two control experiments while good records cannot be stored. It is short,
 * since the whole intake stands still until one succeeds.
 */
const longestSoundCheckMs = 8_000;
/**
 * Upper bound of the batches held, in bytes. A further batch is dropped, and its runner sends it
 * again.
 */
const maxHeldBytes = 16 * 1024 * 1024;
/** Pauses between tries: each is twice the one before, from `firstMs` to `longestMs`. */
export type Pauses = { firstMs: number; longestMs: number };
const defaultPauses: Pauses = { firstMs: 1_000, longestMs: 30_000 };

export type QuarantineOptions = {
  store: Store;
  batches: BatchStore;
  /** Called with each batch that is stored, or dropped so that its runner sends it again. */
  end(held: HeldBatch): void;
  /** Called with every fault that is not passing. */
  report(error: unknown): void;
  pauses?: Pauses | undefined;
};

/** Not even good records can be stored: the control experiment failed. */
class Broken extends Error {}

export class Quarantine {
  readonly #options: QuarantineOptions;
  readonly #cases = new Map<string, Case>(); // by attempt
  /**
   * By attempt, the time (`performance.now()`) until which its batches go straight into quarantine.
   */
  readonly #suspects = new Map<string, number>();
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;
  #heldBytes = 0;
  #trying: string | null = null;
  #broken: string | null = null;
  #wake = () => {};

  /** Starts the quarantine. It is empty, and waits until a batch comes. */
  constructor(options: QuarantineOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  /**
   * Takes a batch over. It holds one batch of an attempt: a runner sends the next one once this one
   * is acknowledged.
   */
  add(held: HeldBatch): void {
    const { batches, end } = this.#options;
    const { attemptId } = held.batch;
    const before = this.#cases.get(attemptId);
    const bytes = held.entry.batch.length - (before?.entry.batch.length ?? 0);
    // The runner keeps a dropped batch and sends it again: the batch being tried is acknowledged
    // soon, and one that is too much finds room later.
    if (this.#trying === attemptId || this.#heldBytes + bytes > maxHeldBytes) return end(held);
    const { failures = 0, dueAt = 0, commits = batches.commits } = before ?? {};
    if (before) end(before);
    this.#cases.set(attemptId, { ...held, failures, dueAt, commits });
    this.#heldBytes += bytes;
    this.#wake();
  }

  /** Whether the quarantine holds a batch of the attempt. */
  holds(attemptId: string): boolean {
    return this.#cases.has(attemptId);
  }

  /**
   * Whether new batches of the attempt go straight into quarantine: it holds one already, or a
   * record of the attempt was refused within the last minute.
   */
  isFor(attemptId: string): boolean {
    return this.#cases.has(attemptId) || (this.#suspects.get(attemptId) ?? 0) > performance.now();
  }

  /** The reason why not even good records can be stored; null while they can. */
  get broken(): string | null {
    return this.#broken;
  }

  /** Resolves once the transaction at hand has ended. */
  async stop(): Promise<void> {
    this.#ending.abort();
    this.#wake();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#ending.signal.aborted) {
      const [next] = [...this.#cases.values()].sort((a, b) => a.dueAt - b.dueAt);
      const waitMs = next ? next.dueAt - performance.now() : null;
      if (!next || (waitMs !== null && waitMs > 0)) await this.#untilWoken(waitMs);
      else await this.#try(next);
    }
  }

  #untilWoken(waitMs: number | null): Promise<void> {
    return new Promise((resolve) => {
      const timer = waitMs === null ? undefined : setTimeout(resolve, waitMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      if (this.#ending.signal.aborted) this.#wake();
    });
  }

  async #try(next: Case): Promise<void> {
    const { store, batches, report } = this.#options;
    const { attemptId } = next.batch;
    this.#trying = attemptId;
    try {
      const refusals = batches.counts.refused;
      batches.tell(await storeInPieces(store, batches, next.batch, next.failures >= mostFailures, report));
      if (batches.counts.refused > refusals) this.#suspect(attemptId);
      this.#remove(attemptId);
    } catch (error) {
      if (error instanceof Broken) await this.#untilSound(error.message, typesOf(next.batch));
      else if (isPassing(error)) {
        if (batches.commits > next.commits) next.failures++;
        next.commits = batches.commits;
        next.dueAt = performance.now() + this.#pauseMs(next.failures);
      } else {
        // Refusing the record failed as well. The control experiment passed, so only this job is at
        // fault.
        report(error);
        this.#suspect(attemptId);
        this.#remove(attemptId);
      }
    } finally {
      this.#trying = null;
    }
  }

  #remove(attemptId: string): void {
    const held = this.#cases.get(attemptId);
    if (!held) return;
    this.#cases.delete(attemptId);
    this.#heldBytes -= held.entry.batch.length;
    this.#options.end(held);
  }

  #suspect(attemptId: string): void {
    const now = performance.now();
    for (const [id, until] of this.#suspects) if (until < now) this.#suspects.delete(id);
    this.#suspects.set(attemptId, now + suspectMs);
  }

  async #untilSound(reason: string, types: ReadonlySet<RunnerRecord['type']>): Promise<void> {
    const { signal } = this.#ending;
    this.#broken = reason;
    intakeBroken.set(1);
    for (let tries = 0; !signal.aborted; tries++) {
      await sleep(Math.min(longestSoundCheckMs, this.#pauseMs(tries)), undefined, { signal }).catch(() => {});
      const sound = await runControl(this.#options.store, types).then(
        () => true,
        () => false,
      );
      if (sound) break;
    }
    this.#broken = null;
    intakeBroken.set(0);
  }

  #pauseMs(failures: number): number {
    const { firstMs, longestMs } = this.#options.pauses ?? defaultPauses;
    return Math.min(longestMs, firstMs * 2 ** failures);
  }
}

/**
 * Stores a batch in its order, and refuses the records that cannot be stored. With `takesBlame`, a
 * passing fault counts as the fault of a record. Rejects with `Broken` when not even good records
 * can be stored, with a passing fault, or when a record cannot even be refused.
 */
async function storeInPieces(
  store: Store,
  batches: BatchStore,
  batch: DecodedBatch,
  takesBlame: boolean,
  report: (error: unknown) => void,
): Promise<PendingAck[]> {
  let isSound = false;
  const storePart = async (part: DecodedBatch): Promise<PendingAck[]> => {
    try {
      return await batches.store([part]);
    } catch (error) {
      if (isPassing(error) && !takesBlame) throw error;
      const halves = halvesOf(part);
      if (halves) {
        await storePart(halves[0]);
        return storePart(halves[1]);
      }
      if (!isSound) {
        report(error); // reported once a batch, which may have a thousand such records
        await requireSound(store, typesOf(batch));
        isSound = true;
      }
      if (part.records.length === 0) throw error; // a heartbeat has no record to refuse
      return batches.refuse(part, reasonOf(error));
    }
  };
  return storePart(batch);
}

async function requireSound(store: Store, types: ReadonlySet<RunnerRecord['type']>): Promise<void> {
  try {
    await runControl(store, types);
  } catch (error) {
    if (isPassing(error)) throw error;
    throw new Broken(reasonOf(error), { cause: error });
  }
}

function typesOf({ records }: DecodedBatch): ReadonlySet<RunnerRecord['type']> {
  return new Set(records.flatMap((record) => parseRecord(record)?.type ?? []));
}
