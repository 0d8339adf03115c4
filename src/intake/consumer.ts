// The consumer takes batches from the uplink, stores them, then acknowledges them to the runners.
// Any gateway may store any batch. A batch that cannot be stored goes into quarantine, so that it
// delays no other. While no batch can be stored, none is read.
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
  /** Numbers of stored and refused records since the start. */
  readonly counts: IntakeCounts;
  /**
   * The reason why not even records of the gateway's own, which are known to be good, can be
   * stored; null while records can be stored.
   */
  readonly broken: string | null;
  /**
   * Whether this gateway has, for one whole lease, read the uplink to its end and reached the
   * database without a break.
   */
  isWell(): boolean;
  /** Resolves once the batch at hand is stored. */
  stop(): Promise<void>;
};

type WaitingBatch = HeldBatch & {
  /** `BatchStore.commits` at its first failure; undefined before. */
  failedAt?: number;
};

const entriesPerCommit = 32;
const blockMs = 1_000;
const [firstPauseMs, longestPauseMs] = [500, 5_000];
const sweepMs = 1_000;

export type ConsumerOptions = IntakeLimits & {
  /** Called with failures; of an outage, only with the first. */
  report(error: unknown): void;
  /** Pauses between the tries of a batch in quarantine; tests pass shorter ones. */
  quarantinePauses?: Pauses;
};

/** Starts to store the records of runners, and to end attempts whose lease has expired. */
export function startConsumer(store: Store, options: ConsumerOptions): Consumer {
  const { leaseSeconds, maxMetricNames, report } = options;
  const ending = new AbortController();
  const { signal } = ending;
  const name = randomUUID();
  const batches = createBatchStore(store, options);
  const { counts } = batches;
  /** Batches that are read and not stored, in the order in which they came. */
  let waiting: WaitingBatch[] = [];
  /**
   * Entries that are stored, or that their runners will send again, and that the bus still holds.
   */
  const ended: UplinkEntry[] = [];
  const end = ({ entry }: HeldBatch) => void ended.push(entry);
  const quarantine = startQuarantine({ store, batches, end, report, pauses: options.quarantinePauses });
  // An outage or a backlog of this gateway must never cost a job. So a lease ends only after this
  // gateway has read the uplink to its end, and reached the database, for one whole lease without a
  // break. A process that stood still (e.g. a machine that slept) breaks it too: on waking, all
  // leases look expired before the records that came meanwhile are read.
  const breakMs = Math.max(2 * blockMs, (leaseSeconds * 1000) / 6);
  let wellSince: number | null = null;
  let turnedAt = performance.now();
  const stoodStill = () => performance.now() - turnedAt > breakMs;
  const isWell = () => wellSince !== null && !stoodStill() && performance.now() - wellSince >= leaseSeconds * 1000;

  /**
   * Number of batches that share the next transaction: one after a failure, then twice as many each
   * time, up to 32.
   */
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

  /**
   * Handles a batch that failed alone in its transaction. After a passing fault it lets other
   * attempts go first. It goes into quarantine when the fault is its own: another kind of error, or
   * others were stored since its first failure.
   */
  const setBack = ({ batch, failedAt }: WaitingBatch, error: unknown) => {
    // Batches of one attempt stay in their order.
    const same = waiting.filter((held) => held.batch.attemptId === batch.attemptId);
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
      return; // the next turns try each batch alone, without a pause
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
        if (failures === 0) report(error); // only the first of an outage
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
        for (const attempt of await listLapsed(store.database.db, 100)) {
          // A batch in quarantine may be the sign of life that would have renewed the lease.
          if (quarantine.holds(attempt.id)) continue;
          if (await commit(store, (tx) => expireLease(tx, attempt))) leasesLost.inc();
        }
      } catch (error) {
        wellSince = null;
        report(error);
      }
    }
  };

  const retry = async () => {
    for (let isDone = false; !isDone && !signal.aborted;) {
      try {
        await retryRefused(store, maxMetricNames, signal);
        isDone = true;
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
