// The quarantine: batches that could not be stored are tried here, one attempt after the other and beside all others, first
// whole, then in halves, down to the record that fails. That record is set aside, and what waits behind it goes on.
import { setTimeout as sleep } from 'node:timers/promises';
import { isPassing } from '../database/database.ts';
import { intakeBroken } from '../metrics-registry.ts';
import type { Store } from '../live/commit.ts';
import { type DecodedBatch, parseRecord, type RunnerRecord } from '../protocol/record.ts';
import { type BatchStore, halvesOf, type HeldBatch } from './batches.ts';
import { runControl } from './control.ts';
import type { PendingAck } from './intake.ts';
import { reasonOf } from './refuse.ts';

export type Quarantine = {
  /** Takes a batch over. Of one attempt it holds one batch: a runner sends the next one when this one is answered. */
  add(held: HeldBatch): void;
  /** Whether a batch of the attempt is here. */
  holds(attemptId: string): boolean;
  /** Whether batches of the attempt come here at once: one is here, or a record of it was refused a short while ago. */
  isFor(attemptId: string): boolean;
  /** Why nothing can be stored here, not even good records; null while the gateway is sound. */
  readonly broken: string | null;
  /** Ends after the transaction at hand. */
  stop(): Promise<void>;
};

type Case = HeldBatch & {
  /** Passing faults while others were stored. */
  failures: number;
  /** By `performance.now()`; it is not tried before. */
  dueAt: number;
  /** `BatchStore.commits` when it failed last. */
  commits: number;
};

/** A batch that fails so often with a passing fault, while others are stored, is taken to be what is at fault. */
const mostFailures = 10;
/** After a refused record, batches of the attempt come here at once: in a group each would cost the others a transaction. */
const suspectMs = 60_000;
/** While even good records cannot be stored nothing is stored at all, so that being sound again must be noticed soon. */
const longestSoundCheckMs = 8_000;
/** Batches beyond this are left to their runners, which send them again. */
const maxHeldBytes = 16 * 1024 * 1024;
/** The first pause after a failure, and the longest; each is twice the one before. */
export type Pauses = { firstMs: number; longestMs: number };

export type QuarantineOptions = {
  store: Store;
  batches: BatchStore;
  /** Gets each batch that is stored, or is left to its runner, which then sends it again. */
  end(held: HeldBatch): void;
  /** Gets every fault that is not passing. */
  report(error: unknown): void;
  pauses?: Pauses | undefined;
};

/** The gateway cannot store even good records. */
class Broken extends Error {}

/** Starts the quarantine; it is empty and costs nothing until a batch comes. */
export function startQuarantine(options: QuarantineOptions): Quarantine {
  const { store, batches, end, report, pauses = { firstMs: 1_000, longestMs: 30_000 } } = options;
  const pauseMs = (failures: number) => Math.min(pauses.longestMs, pauses.firstMs * 2 ** failures);
  const cases = new Map<string, Case>(); // by attempt; who was tried last comes last
  const suspects = new Map<string, number>(); // until when, by attempt
  const ending = new AbortController();
  const { signal } = ending;
  let heldBytes = 0;
  let trying: string | null = null;
  let broken: string | null = null;
  let wake = () => {};

  const remove = (attemptId: string) => {
    const held = cases.get(attemptId);
    if (!held) return;
    cases.delete(attemptId);
    heldBytes -= held.entry.batch.length;
    end(held);
  };

  const run = async () => {
    while (!signal.aborted) {
      const [next] = [...cases.values()].sort((a, b) => a.dueAt - b.dueAt);
      const waitMs = next ? next.dueAt - performance.now() : null;
      if (!next || (waitMs !== null && waitMs > 0)) await untilWoken(waitMs);
      else await tryCase(next);
    }
  };

  const untilWoken = (waitMs: number | null) =>
    new Promise<void>((resolve) => {
      const timer = waitMs === null ? undefined : setTimeout(resolve, waitMs);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
      if (signal.aborted) wake();
    });

  const tryCase = async (next: Case) => {
    const { attemptId } = next.batch;
    trying = attemptId;
    try {
      const refusals = batches.counts.refused;
      batches.tell(await storeInPieces(store, batches, next.batch, next.failures >= mostFailures, report));
      if (batches.counts.refused > refusals) suspect(attemptId);
      remove(attemptId);
    } catch (error) {
      if (error instanceof Broken) await untilSound(error.message, typesOf(next.batch));
      else if (isPassing(error)) {
        if (batches.commits > next.commits) next.failures++;
        next.commits = batches.commits;
        next.dueAt = performance.now() + pauseMs(next.failures);
      } else {
        // Not even setting it aside could be stored: its job alone is at fault, since the control experiment passed.
        report(error);
        suspect(attemptId);
        remove(attemptId);
      }
    } finally {
      trying = null;
    }
  };

  const suspect = (attemptId: string) => {
    const now = performance.now();
    for (const [id, until] of suspects) if (until < now) suspects.delete(id);
    suspects.set(attemptId, now + suspectMs);
  };

  const untilSound = async (reason: string, types: ReadonlySet<RunnerRecord['type']>) => {
    broken = reason;
    intakeBroken.set(1);
    for (let tries = 0; !signal.aborted; tries++) {
      await sleep(Math.min(longestSoundCheckMs, pauseMs(tries)), undefined, { signal }).catch(() => {});
      const sound = await runControl(store, types).then(
        () => true,
        () => false,
      );
      if (sound) break;
    }
    broken = null;
    intakeBroken.set(0);
  };

  const running = run();
  return {
    add(held) {
      const { attemptId } = held.batch;
      const before = cases.get(attemptId);
      const bytes = held.entry.batch.length - (before?.entry.batch.length ?? 0);
      // What is tried just now is answered soon, and what is too much comes again: its runner keeps both.
      if (trying === attemptId || heldBytes + bytes > maxHeldBytes) return end(held);
      const { failures = 0, dueAt = 0, commits = batches.commits } = before ?? {};
      if (before) end(before);
      cases.set(attemptId, { ...held, failures, dueAt, commits });
      heldBytes += bytes;
      wake();
    },
    holds: (attemptId) => cases.has(attemptId),
    isFor: (attemptId) => cases.has(attemptId) || (suspects.get(attemptId) ?? 0) > performance.now(),
    get broken() {
      return broken;
    },
    async stop() {
      ending.abort();
      wake();
      await running;
    },
  };
}

/**
 * Stores a batch, in its order, without the records that cannot be stored, which are set aside. Rejects with `Broken`, with a
 * passing fault, or when a record could not even be set aside. `takesBlame`: a passing fault is the batch's own.
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
        report(error); // once a batch, which may have a thousand such records
        await requireSound(store, typesOf(batch));
        isSound = true;
      }
      if (part.records.length === 0) throw error; // a heartbeat, with nothing to set aside
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
