// Batches on their way from the uplink into the database, and what their runners are told of them.
import type { UplinkEntry } from '../bus/bus.ts';
import { intakeFigures, recordsPerCommit } from '../metrics-registry.ts';
import { commit, type Store, type Tx } from '../live/commit.ts';
import type { DecodedBatch } from '../protocol/record.ts';
import { type IntakeCounts, lengthOf, noCounts, refuseBatch, takeBatches, type PendingAck } from './intake.ts';

/** An entry of the uplink with the batch that it holds; it is ours until it is stored or left to its runner. */
export type HeldBatch = { readonly entry: UplinkEntry; readonly batch: DecodedBatch };

export type IntakeLimits = {
  readonly leaseSeconds: number;
  /** Names of metrics that a job keeps; points of further ones are dropped, which its log says once. */
  readonly maxMetricNames: number;
};

export type BatchStore = {
  /** What was stored and refused since the start. */
  readonly counts: IntakeCounts;
  /** Grows with each transaction that stored something. */
  readonly commits: number;
  /** Stores batches in one transaction; several attempts share its cost. Their runners are still to be told. */
  store(batches: readonly DecodedBatch[]): Promise<PendingAck[]>;
  /** Sets the only record of a batch aside. */
  refuse(batch: DecodedBatch, reason: string): Promise<PendingAck[]>;
  /** Tells runners what is committed. A lost acknowledgement costs a second: the batch comes again, and is answered then. */
  tell(acknowledgements: readonly PendingAck[]): void;
};

export function createBatchStore(store: Store, { leaseSeconds, maxMetricNames }: IntakeLimits): BatchStore {
  const counts = noCounts();
  let commits = 0;
  /** Commits what counts its work, and adds the counts once that is done. */
  const counted = async <T>(work: (tx: Tx, added: IntakeCounts) => Promise<T>): Promise<T> => {
    let added = noCounts();
    const result = await commit(store, (tx) => {
      added = noCounts(); // a transaction that is repeated counts anew
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

/** The first and the second half of a batch, with the numbers that their records have; null for fewer than two records. */
export function halvesOf(batch: DecodedBatch): [DecodedBatch, DecodedBatch] | null {
  if (batch.records.length < 2) return null;
  const middle = batch.records.length >> 1;
  const before = batch.records.slice(0, middle);
  const second = before.reduce((number: number, record) => number + lengthOf(record), batch.first);
  return [partOf(batch, batch.first, before), partOf(batch, second, batch.records.slice(middle))];
}

function partOf(batch: DecodedBatch, first: number, records: unknown[]): DecodedBatch {
  return { ...batch, first, records, recordsJson: Buffer.from(JSON.stringify(records)) };
}
