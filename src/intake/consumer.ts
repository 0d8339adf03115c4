// The consumer: takes batches from the uplink, stores them, then tells the runners. Any gateway may store any batch.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { listLapsed } from '../attempt/end.ts';
import type { UplinkEntry } from '../bus/bus.ts';
import { passingFault } from '../database/database.ts';
import { intakeFigures, leasesLost, recordsPerCommit } from '../figures.ts';
import { commit, type Store } from '../live/commit.ts';
import { endLapsed, type IntakeCounts, takeBatches } from './intake.ts';

export type Consumer = {
  /** What was stored and refused since the start. */
  readonly counts: IntakeCounts;
  /** Whether we read the uplink to its end and reached the database, for one whole lease without a break. */
  isWell(): boolean;
  /** Ends after the batch at hand. */
  stop(): Promise<void>;
};

type Limits = { leaseSeconds: number; maxMetricNames: number };

const entriesPerCommit = 32;
const blockMs = 1_000;
const pauseAfterErrorMs = 500;
const sweepMs = 1_000;

/** Starts to store what runners send, and to end the attempts of runners that are lost. `report` gets every failure. */
export function startConsumer(
  store: Store,
  leaseSeconds: number,
  report: (error: unknown) => void,
  maxMetricNames = Infinity,
): Consumer {
  const ending = new AbortController();
  const { signal } = ending;
  const name = randomUUID();
  const counts: IntakeCounts = { records: 0, duplicates: 0, holes: 0, fenced: 0, damaged: 0 };
  // Our own outage or backlog must never cost a job: a lease ends only after we have read the uplink to its end, and
  // reached the database, for one whole lease without a break. Standing still is one: stopped and continued, we would
  // find all leases lapsed before we read what had come meanwhile.
  const breakMs = Math.max(2 * blockMs, (leaseSeconds * 1000) / 6);
  let wellSince: number | null = null;
  let turnedAt = performance.now();
  let troubled = false;
  const stoodStill = () => performance.now() - turnedAt > breakMs;
  const isWell = () => wellSince !== null && !stoodStill() && performance.now() - wellSince >= leaseSeconds * 1000;

  const consume = async () => {
    while (!signal.aborted) {
      try {
        const entries = await store.bus.take(name, { max: entriesPerCommit, blockMs, signal });
        if (entries.length > 0)
          await store.bus.done(await storeAll(store, entries, { leaseSeconds, maxMetricNames }, counts, report));
        if (entries.length >= entriesPerCommit || stoodStill()) wellSince = null;
        else wellSince ??= performance.now();
        turnedAt = performance.now();
        troubled = false;
      } catch (error) {
        wellSince = null;
        if (signal.aborted) return;
        if (!troubled) report(error); // once an outage
        troubled = true;
        await sleep(pauseAfterErrorMs, undefined, { signal }).catch(() => {});
      }
    }
  };

  const sweep = async () => {
    while (!signal.aborted) {
      await sleep(sweepMs, undefined, { signal }).catch(() => {});
      if (signal.aborted || !isWell()) continue;
      try {
        for (const lapsed of await listLapsed(store.database.db, 100))
          if (await commit(store, (tx) => endLapsed(tx, lapsed))) leasesLost.inc();
      } catch (error) {
        wellSince = null;
        report(error);
      }
    }
  };

  const running = Promise.all([consume(), sweep()]);
  return {
    counts,
    isWell,
    async stop() {
      ending.abort();
      await running;
    },
  };
}

/**
 * Stores all entries in one transaction; when that fails, each alone, so that one that cannot be stored stops no other.
 * Returns those that are stored. Rejects when none could be: then it is not the entries that are wrong.
 */
async function storeAll(
  store: Store,
  entries: readonly UplinkEntry[],
  limits: Limits,
  counts: IntakeCounts,
  report: (error: unknown) => void,
): Promise<readonly UplinkEntry[]> {
  try {
    await storeSome(store, entries, limits, counts);
    return entries;
  } catch (error) {
    if (entries.length === 1 || passingFault(error)) throw error;
    const stored: UplinkEntry[] = [];
    const failures: unknown[] = [];
    for (const entry of entries) {
      const alone = storeSome(store, [entry], limits, counts).then(() => stored.push(entry));
      await alone.catch((failure: unknown) => failures.push(failure));
    }
    if (stored.length === 0) throw error;
    failures.forEach(report);
    return stored;
  }
}

async function storeSome(
  store: Store,
  entries: readonly UplinkEntry[],
  { leaseSeconds, maxMetricNames }: Limits,
  counts: IntakeCounts,
): Promise<void> {
  const added: IntakeCounts = { records: 0, duplicates: 0, holes: 0, fenced: 0, damaged: 0 };
  const batches = entries.map((entry) => entry.batch);
  const told = await commit(store, (tx) => {
    Object.assign(added, { records: 0, duplicates: 0, holes: 0, fenced: 0, damaged: 0 }); // a retry counts anew
    return takeBatches(tx, batches, leaseSeconds, added, maxMetricNames);
  });
  for (const key of Object.keys(added) as (keyof IntakeCounts)[]) {
    counts[key] += added[key];
    intakeFigures[key].inc(added[key]);
  }
  if (added.records > 0) recordsPerCommit.observe(added.records);
  for (const { channel, acknowledgement } of told) {
    // A lost acknowledgement costs a second: the runner sends its batch again, and hears of it then.
    store.bus.publish(channel, JSON.stringify(acknowledgement)).catch(() => {});
  }
}
