// The consumer stores what runners send, and acknowledges it to them; any gateway may store any
// batch. It also ends attempts whose lease has expired, and tries refused records once more.
import { setTimeout as sleep } from 'node:timers/promises';
import { listLapsed } from '../attempt/end.ts';
import { leasesLost } from '../metrics-registry.ts';
import { commit, type Store } from '../live/commit.ts';
import { createBatchStore, type IntakeLimits } from './batches.ts';
import type { IntakeCounts } from './counts.ts';
import { Health } from './health.ts';
import { expireLease } from './lost.ts';
import { type Pauses, Quarantine } from './quarantine.ts';
import { retryRefused } from './retry.ts';
import { blockMs, UplinkReader } from './uplink-reader.ts';

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

const sweepMs = 1_000;
const retryPauseMs = 5_000;

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
  const batches = createBatchStore(store, options);
  const health = new Health(leaseSeconds, blockMs);
  const pauses = options.quarantinePauses;
  const quarantine = new Quarantine({ store, batches, end: ({ entry }) => reader.end(entry), report, pauses });
  const reader = new UplinkReader({ bus: store.bus, batches, quarantine, health, report });
  const running = Promise.all([
    reader.run(signal),
    sweepLeases(store, { health, quarantine, report, signal }),
    retryOnce(store, maxMetricNames, report, signal),
  ]);
  return {
    counts: batches.counts,
    get broken() {
      return quarantine.broken;
    },
    isWell: () => health.isWell(),
    async stop() {
      ending.abort();
      await running;
      await quarantine.stop();
    },
  };
}

type SweepOptions = {
  health: Health;
  quarantine: Pick<Quarantine, 'holds'>;
  report(error: unknown): void;
  signal: AbortSignal;
};

/** Ends attempts whose lease has expired, once a second while the gateway is well. */
async function sweepLeases(store: Store, { health, quarantine, report, signal }: SweepOptions): Promise<void> {
  while (!signal.aborted) {
    await sleep(sweepMs, undefined, { signal }).catch(() => {});
    if (signal.aborted || !health.isWell()) continue;
    try {
      for (const attempt of await listLapsed(store.database.db, 100)) {
        // A batch in quarantine may be the sign of life that would have renewed the lease.
        if (quarantine.holds(attempt.id)) continue;
        if (await commit(store, (tx) => expireLease(tx, attempt))) leasesLost.inc();
      }
    } catch (error) {
      health.interrupt();
      report(error);
    }
  }
}

/** Tries all refused records once; again from the first while the database is away. */
async function retryOnce(
  store: Store,
  maxMetricNames: number,
  report: (error: unknown) => void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await retryRefused(store, maxMetricNames, signal);
      return;
    } catch (error) {
      report(error);
      await sleep(retryPauseMs, undefined, { signal }).catch(() => {});
    }
  }
}
