// Stores batches of the uplink in the database, counts them, and sends the acknowledgements to
// their runners.
import type { UplinkEntry } from '../bus/bus.ts';
import { intakeFigures, recordsPerCommit } from '../metrics-registry.ts';
import { commit, type Store, type Tx } from '../live/commit.ts';
import type { DecodedBatch } from '../protocol/record.ts';
import { lengthOf } from './accept.ts';
import { type IntakeCounts, noCounts } from './counts.ts';
import { type PendingAck, refuseBatch, takeBatches } from './intake.ts';

/**
 * An uplink entry with its decoded batch. This consumer holds it until it is stored, or dropped for
 * its runner to send again.
 */
export type HeldBatch = { readonly entry: UplinkEntry; readonly batch: DecodedBatch };

export type IntakeLimits = {
  readonly leaseSeconds: number;
  /**
   * Upper bound of metric names that a job keeps. Points of further names are dropped, and a line
   * of its log says so once.
   */
  readonly maxMetricNames: number;
};

export type BatchStore = {
  /** Numbers of stored and refused records since the start. */
  readonly counts: IntakeCounts;
  /** Counts the transactions that stored something. */
  readonly commits: number;
  /**
   * Stores batches in one transaction, so that several attempts share its cost. The caller passes
   * the result to `tell`.
   */
  store(batches: readonly DecodedBatch[]): Promise<PendingAck[]>;
  /** Stores the only record of a batch as a refused one, with the reason. */
  refuse(batch: DecodedBatch, reason: string): Promise<PendingAck[]>;
  /**
   * Publishes acknowledgements to the runners. A lost one costs a second: the runner sends the
   * batch again and is answered then.
   */
  tell(acknowledgements: readonly PendingAck[]): void;
};

export function createBatchStore(store: Store, { leaseSeconds, maxMetricNames }: IntakeLimits): BatchStore {
  const counts = noCounts();
  let commits = 0;
  /**
   * Runs `work` in a transaction that counts what it stores; the counts are added after the commit.
   */
  const counted = async <T>(work: (tx: Tx, added: IntakeCounts) => Promise<T>): Promise<T> => {
    let added = noCounts();
    const result = await commit(store, (tx) => {
      added = noCounts(); // `commit` may run `work` again, and each run counts from zero
      return work(tx, added);
    });
    commits++;
    for (const key of Object.keys(added) as (keyof IntakeCounts)[]) {
      counts[key] += added[key];
      intakeFigures[key].inc(added[key]);
    }
    if (added.records > 0) recordsPerCommit.observe(added.records);
    return result;
  };
  return {
    counts,
    get commits() {
      return commits;
    },
    store: (batches) =>
      counted((tx, added) => {
        return takeBatches(tx, batches, leaseSeconds, added, maxMetricNames);
      }),
    async refuse(batch, reason) {
      const answer = await counted((tx, added) => refuseBatch(tx, batch, { reason, leaseSeconds, counts: added }));
      return answer ? [answer] : [];
    },
    tell(acknowledgements) {
      for (const { channel, acknowledgement } of acknowledgements) {
        store.bus.publish(channel, JSON.stringify(acknowledgement)).catch(() => {});
      }
    },
  };
}

/** Splits a batch into halves with the right record numbers; null for fewer than two records. */
export function halvesOf(batch: DecodedBatch): [DecodedBatch, DecodedBatch] | null {
  if (batch.records.length < 2) return null;
  const middle = batch.records.length >> 1;
  const firstHalf = batch.records.slice(0, middle);
  const second = firstHalf.reduce((number: number, record) => number + lengthOf(record), batch.first);
  return [partOf(batch, batch.first, firstHalf), partOf(batch, second, batch.records.slice(middle))];
}

function partOf(batch: DecodedBatch, first: number, records: unknown[]): DecodedBatch {
  return { ...batch, first, records, recordsJson: Buffer.from(JSON.stringify(records)) };
}
