// Prometheus metrics of the gateway, each named and explained here only. They are for people and
// tests; no code of the gateway reads them back. A process has one set, as Prometheus expects.
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

export const registry = new Registry();

/** Records and batches from runners, and their outcomes. Counted after the commit. */
export const intakeFigures = {
  records: counter('records_total', 'Records of runners that were stored.'),
  duplicates: counter('duplicate_records_total', 'Records that had been stored before and were dropped.'),
  holes: counter('holes_refused_total', 'Batches refused because records before them are missing.'),
  fenced: counter('fenced_batches_total', 'Batches refused because their attempt is over or has another holder.'),
  damaged: counter('damaged_batches_total', 'Batches that could not be read.'),
  refused: counter('refused_records_total', 'Records that could not be stored and were set aside.'),
};

export const intakeBroken = gauge(
  'intake_broken',
  '1 while nothing is stored because the gateway cannot store even records of its own that are known to be good.',
);

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

const lagBuckets = [0.005, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60];

/** Live streams: the number of followers, and the work that they cause. */
export const liveFigures = {
  followers: gauge('followers', 'Subscriptions that follow a topic.'),
  feeds: gauge('feeds', 'Topics that are followed: one feed each.'),
  ringHits: counter('ring_hits_total', 'Batches that a follower found read already.'),
  appends: counter('ring_appends_total', 'Batches that came with a message and were not read from the database.'),
  reads: counter('history_reads_total', 'Readings of the database for followers; identical ones at a time are one.'),
  demotions: counter('demotions_total', 'Times that a follower fell behind the ring and went on with history.'),
  healed: counter('gaps_healed_total', 'Times that a check found what no message had told.'),
  executions: counter('shared_executions_total', 'Events executed and serialised for a group of subscribers.'),
  deliveries: counter('shared_deliveries_total', 'Events handed to a subscriber from such an execution.'),
  stuck: counter('stuck_connections_total', 'Subscribers cut because they took nothing for 30 seconds.'),
  lag: histogram(
    'read_to_feed_seconds',
    'Seconds from the moment a runner read a line to the moment its followers can take it, the newest of each batch; clocks of two machines.',
    lagBuckets,
  ),
  deliveryLag: histogram(
    'read_to_delivery_seconds',
    'Seconds from the moment a runner read a line to the moment it is handed to the connection of the first subscriber that gets it live from a shared execution, the newest of each batch; clocks of two machines.',
    lagBuckets,
  ),
};

const buffers = new Set<() => number>();
new Gauge({
  name: 'astraml_buffered_bytes',
  help: 'Bytes that wait in this process for subscribers to take them.',
  registers: [registry],
  collect() {
    this.set([...buffers].reduce((sum, read) => sum + read(), 0));
  },
});

/**
 * Adds `read` to the sources of the gauge of buffered bytes, until the returned function is called.
 */
export function watchBuffers(read: () => number): () => void {
  buffers.add(read);
  return () => void buffers.delete(read);
}

/** Long connections, i.e. websockets and event streams, and their buffers. */
export const connectionFigures = {
  connections: gauge('connections', 'TCP connections that are open, WebSockets and event streams among them.'),
  sockets: gauge('sockets', 'WebSockets that are open.'),
  eventStreams: gauge('event_streams', 'Event streams (Server-Sent Events) that are open.'),
  subscriptions: gauge('subscriptions', 'Subscriptions that are open, by their field.', ['field']),
  claims: gauge('claims_waiting', "Runners' claims that wait for a job."),
  capped: counter('capped_total', 'Connections, sockets and operations refused because of a cap, by cap.', ['cap']),
};

/**
 * Requests by `door`: graphql_post, graphql_get, graphql_socket, event_stream, rest, runner, claim,
 * page or probe.
 */
export const requestFigures = {
  inFlight: gauge('requests_in_flight', 'Requests that are being answered; event streams and claims apart.', ['door']),
  seconds: histogram(
    'request_seconds',
    'Seconds from a request to the end of its answer (an event stream: to its beginning), by door and outcome: 2xx to 5xx, left when the client was gone before, on sockets ok, refused or failed.',
    [0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
    ['door', 'outcome'],
  ),
  bugs: counter('bugs_total', 'Errors that nobody foresaw; each is in the log, with a reference.'),
};

/** Background loops of the gateway, and the Postgres and Redis that it uses. */
export const workFigures = {
  steps: counter('loop_steps_total', 'Steps of background loops, by loop and outcome: done or failed.', [
    'loop',
    'outcome',
  ]),
  transactionWait: histogram(
    'transaction_wait_seconds',
    'Seconds that a transaction waits for a connection of the pool and its BEGIN.',
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10],
  ),
  redisUp: gauge('redis_up', '1 while Redis can be reached, 0 while it is away.'),
  oldestBatch: gauge(
    'oldest_batch_seconds',
    'Seconds since the oldest batch came that no gateway has stored, of all gateways; 0 for none.',
  ),
  uplinkOpen: gauge('uplink_open', '1 while every stream of the uplink takes entries, 0 while one does not.'),
  placements: counter('placements_total', 'Transactions that placed a job on a runner, by outcome: placed or none.', [
    'outcome',
  ]),
  leasesRenewed: counter('leases_renewed_total', 'Renewals of a lease that a runner asked for, without records.'),
  attempts: gauge('attempts_active', 'Attempts that run anywhere, of all gateways, as the database has it.'),
  queued: gauge('jobs_queued', 'Jobs that wait for a runner, of all gateways, as the database has it.'),
};

function gauge(name: string, help: string, labelNames: string[] = []): Gauge {
  return new Gauge({ name: `astraml_${name}`, help, labelNames, registers: [registry] });
}

function counter(name: string, help: string, labelNames: string[] = []): Counter {
  return new Counter({ name: `astraml_${name}`, help, labelNames, registers: [registry] });
}

function histogram(name: string, help: string, buckets: number[], labelNames: string[] = []): Histogram {
  return new Histogram({ name: `astraml_${name}`, help, buckets, labelNames, registers: [registry] });
}
