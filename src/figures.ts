// What the gateway counts, each figure named and explained here only, in Prometheus terms. They are figures to watch and
// proof that rare paths were taken; nothing in the product reads them back. One set a process, as Prometheus expects.
import { Counter, Histogram, Registry } from 'prom-client';

export const registry = new Registry();

/** Intake: what runners sent, and what became of it. Counted after the commit. */
export const intakeFigures = {
  records: counter('records_total', 'Records of runners that were stored.'),
  duplicates: counter('duplicate_records_total', 'Records that had been stored before and were dropped.'),
  holes: counter('holes_refused_total', 'Batches refused because records before them are missing.'),
  fenced: counter('fenced_batches_total', 'Batches refused because their attempt is over or has another holder.'),
  damaged: counter('damaged_batches_total', 'Batches that could not be read.'),
};

export const recordsPerCommit = histogram(
  'records_per_commit',
  'Records stored by one commit.',
  [1, 10, 50, 100, 500, 1_000, 5_000, 20_000],
);
export const commitLag = histogram(
  'read_to_commit_seconds',
  'Seconds from the moment a runner read a record to its commit, the oldest of each batch; clocks of two machines.',
  [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60, 600],
);
export const leasesLost = counter('leases_lost_total', 'Attempts that ended because their lease lapsed.');
export const replays = counter('replays_total', 'Mutations answered with the first object of their idempotency key.');

function counter(name: string, help: string): Counter {
  return new Counter({ name: `astraml_${name}`, help, registers: [registry] });
}

function histogram(name: string, help: string, buckets: number[]): Histogram {
  return new Histogram({ name: `astraml_${name}`, help, buckets, registers: [registry] });
}
