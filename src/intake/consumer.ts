// The consumer: takes batches from the uplink, stores them, then tells the runners. Any gateway may store any batch. One that
// cannot be stored goes into quarantine, so that it stops no other; while nothing can be stored, nothing more is read.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { listLapsed } from '../attempt/end.ts';
import type { UplinkEntry } from '../bus/bus.ts';
import { isPassing } from '../database/database.ts';
import { intakeFigures, leasesLost } from '../metrics-registry.ts';
import { commit, type Store } from '../live/commit.ts';
import { decodeBatch } from '../protocol/record.ts';
import { createBatchStore, type HeldBatch, type IntakeLimits } from './batches.ts';
import type { IntakeCounts } from './intake.ts';
import { expireLease } from './lost.ts';
import { type Pauses, startQuarantine } from './quarantine.ts';
import { retryRefused } from './retry.ts';

export type Consumer = {
  /** What was stored and refused since the start. */
  readonly counts: IntakeCounts;
  /** Why nothing can be stored, not even records of our own that are known to be good; null while that is not so. */
  readonly broken: string | null;
  /** Whether we read the uplink to its end and reached the database, for one whole lease without a break. */
  isWell(): boolean;
  /** Ends after the batch at hand. */
  stop(): Promise<void>;
};

type WaitingBatch = HeldBatch & {
  /** `BatchStore.commits` when it failed first; undefined until then. */
  failedAt?: number;
};

const entriesPerCommit = 32;
const blockMs = 1_000;
const [firstPauseMs, longestPauseMs] = [500, 5_000];
const sweepMs = 1_000;

export type ConsumerOptions = IntakeLimits & {
  /** Gets every failure, the first of an outage. */
  report(error: unknown): void;
  /** Pauses between the tries of a batch in quarantine; shorter for tests. */
  quarantinePauses?: Pauses;
};

/** Starts to store what runners send, and to end the attempts of runners that are lost. */
export function startConsumer(store: Store, options: ConsumerOptions): Consumer {
  const { leaseSeconds, maxMetricNames, report } = options;
  const ending = new AbortController();
  const { signal } = ending;
  const name = randomUUID();
  const batches = createBatchStore(store, options);
  const { counts } = batches;
  /** Read and not stored, in the order in which they came. */
  let waiting: WaitingBatch[] = [];
  /** Stored, or left to their runners, and still on the bus. */
  const ended: UplinkEntry[] = [];
  const end = ({ entry }: HeldBatch) => void ended.push(entry);
  const quarantine = startQuarantine({ store, batches, end, report, pauses: options.quarantinePauses });
  // Our own outage or backlog must never cost a job: a lease ends only after we have read the uplink to its end, and
  // reached the database, for one whole lease without a break. Standing still is one: stopped and continued, we would
  // find all leases lapsed before we read what had come meanwhile.
  const breakMs = Math.max(2 * blockMs, (leaseSeconds * 1000) / 6);
  let wellSince: number | null = null;
  let turnedAt = performance.now();
  const stoodStill = () => performance.now() - turnedAt > breakMs;
  const isWell = () => wellSince !== null && !stoodStill() && performance.now() - wellSince >= leaseSeconds * 1000;

  /** How many batches share the next transaction: one after a failure, then twice as many each time. */
  let groupSize = entriesPerCommit;

  const receive = (entries: readonly UplinkEntry[]) => {
    for (const entry of entries) {
      const batch = decodeBatch(entry.batch);
      if (!batch) {
        counts.damaged++;
        intakeFigures.damaged.inc();
        ended.push(entry);
      } else if (quarantine.isFor(batch.attemptId)) quarantine.add({ entry, batch });
      else waiting.push({ entry, batch });
    }
  };

  /** A batch that failed alone lets the others go first, or goes into quarantine when it is at fault itself. */
  const setBack = ({ batch, failedAt }: WaitingBatch, error: unknown) => {
    const same = waiting.filter((held) => held.batch.attemptId === batch.attemptId); // in their order, as they stay
    const others = waiting.filter((held) => held.batch.attemptId !== batch.attemptId);
    const othersStored = failedAt !== undefined && batches.commits > failedAt;
    if (!isPassing(error) || othersStored) same.forEach(quarantine.add);
    waiting = !isPassing(error) || othersStored ? others : [...others, ...same];
  };

  const storeNext = async () => {
    const group = waiting.slice(0, groupSize);
    if (group.length === 0) return;
    try {
      batches.tell(await batches.store(group.map(({ batch }) => batch)));
    } catch (error) {
      groupSize = 1;
      const [first] = group;
      if (group.length === 1 && first) setBack(first, error);
      for (const held of group) held.failedAt ??= batches.commits;
      if (isPassing(error)) throw error;
      return; // each alone, at once
    }
    waiting.splice(0, group.length);
    ended.push(...group.map(({ entry }) => entry));
    groupSize = Math.min(entriesPerCommit, groupSize * 2);
  };

  const turn = async () => {
    const room = entriesPerCommit - waiting.length;
    const options = { max: room, blockMs: waiting.length > 0 ? 0 : blockMs, signal };
    const entries = room > 0 ? await store.bus.take(name, options) : [];
    receive(entries);
    await storeNext();
    const done = ended.splice(0);
    await store.bus.done(done).catch((error: unknown) => {
      ended.push(...done);
      throw error;
    });
    if (waiting.length > 0 || entries.length >= entriesPerCommit || stoodStill()) wellSince = null;
    else wellSince ??= performance.now();
    turnedAt = performance.now();
  };

  const consume = async () => {
    let failures = 0;
    while (!signal.aborted) {
      try {
        if (quarantine.broken === null) {
          await turn();
          failures = 0;
          continue;
        }
        wellSince = null;
      } catch (error) {
        wellSince = null;
        if (signal.aborted) return;
        if (failures === 0) report(error); // once an outage
        failures++;
      }
      const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.max(0, failures - 1));
      await sleep(pauseMs, undefined, { signal }).catch(() => {});
    }
  };

  const sweep = async () => {
    while (!signal.aborted) {
      await sleep(sweepMs, undefined, { signal }).catch(() => {});
      if (signal.aborted || !isWell()) continue;
      try {
        for (const lapsed of await listLapsed(store.database.db, 100)) {
          if (quarantine.holds(lapsed.id)) continue; // what is there may be its sign of life
          if (await commit(store, (tx) => expireLease(tx, lapsed))) leasesLost.inc();
        }
      } catch (error) {
        wellSince = null;
        report(error);
      }
    }
  };

  const retry = async () => {
    for (let tried = false; !tried && !signal.aborted;) {
      try {
        await retryRefused(store, maxMetricNames, signal);
        tried = true;
      } catch (error) {
        report(error);
        await sleep(longestPauseMs, undefined, { signal }).catch(() => {});
      }
    }
  };

  const running = Promise.all([consume(), sweep(), retry()]);
  return {
    counts,
    get broken() {
      return quarantine.broken;
    },
    isWell,
    async stop() {
      ending.abort();
      await running;
      await quarantine.stop();
    },
  };
}
