// Log lines per second on the real path: spools and uplinks of runners, Redis streams, the consumer
// of the gateway, commit, acknowledgement. Compared with COPY of the same lines into one table and
// pipelined XADD of the same batches.
import { join } from 'node:path';
import postgres from 'postgres';
import { Spool } from '../src/agent/spool.ts';
import { RecordSender } from '../src/agent/record-sender.ts';
import { type Bus, channels, uplinkShard } from '../src/bus/bus.ts';
import { connect, requireAll } from '../src/bus/redis-connection.ts';
import { redisBus } from '../src/bus/redis.ts';
import { type Acknowledgement, acknowledgement, type Assignment } from '../src/protocol/control.ts';
import { encodeBatch, type RunnerRecord } from '../src/protocol/record.ts';
import { claimJobs, deploy, type Deployment, profileArgs, readNumbers } from './support/deployment.ts';
import { cpuSeconds, figure, printMachine, printTable, quantile } from './support/measure.ts';

const options = readNumbers({ lines: 20_000, attempts: 16, rounds: 3 });
const total = options.lines * options.attempts;
const linesPerBatch = 1_000;

type Run = { rate: number; gateway: number; postgres: number; redis: number; here: number };
type Ways = Record<string, Run[]>;

printMachine();
const bench = await deploy({ nodeArgs: profileArgs() });
const bus = redisBus(bench.redis.url);
try {
  const ways: Ways = { COPY: [], 'XADD, pipelined': [], 'batches → committed': [], 'spools → committed': [] };
  for (let round = 0; round < options.rounds; round++) {
    const { runnerId, assignments } = await claimJobs(bench, options.attempts);
    const texts = Array.from({ length: options.lines }, (_, index) => lineText(index));
    ways['COPY']?.push(await copy(texts, assignments));
    ways['XADD, pipelined']?.push(await addAll(texts, assignments));
    ways['batches → committed']?.push(await sendBatches(texts, runnerId, assignments));
    const next = await claimJobs(bench, options.attempts);
    ways['spools → committed']?.push(await sendSpools(texts, next.runnerId, next.assignments, round));
  }
  print(ways);
} finally {
  await bus.close();
  await bench.stop();
}

function lineText(index: number): string {
  const step = String(index).padStart(6);
  return `step ${step}/200000 loss=${(2 / (1 + index)).toFixed(6)} lr=3.0e-05 grad_norm=${((index * 7919) % 1000) / 250} tokens/s=${51_200 + (index % 977)}`;
}

function recordOf(text: string): RunnerRecord {
  return { type: 'line', time: Date.now(), stream: 'STDOUT', text };
}

/**
 * Copies the same lines, one row each, into a table without index or reference, the cheapest way
 * into Postgres.
 */
async function copy(texts: readonly string[], assignments: readonly Assignment[]): Promise<Run> {
  const sql = postgres(bench.databaseUrl, { max: 1, onnotice: () => {} });
  try {
    await sql`drop table if exists bench_line`;
    await sql`create table bench_line (job_id text, seq bigint, time timestamptz, stream text, line text)`;
    const now = new Date().toISOString();
    const chunks = assignments.flatMap(({ job }) =>
      batchesOf(texts).map((batch, at) =>
        Buffer.from(
          batch.map((text, index) => `${job.id}\t${at * linesPerBatch + index}\t${now}\tSTDOUT\t${text}\n`).join(''),
        ),
      ),
    );
    return await measure(async () => {
      const target = await sql`copy bench_line from stdin`.writable();
      for (const chunk of chunks) {
        if (!target.write(chunk)) await new Promise((resolve) => target.once('drain', resolve));
      }
      await new Promise((resolve, reject) => target.once('finish', resolve).once('error', reject).end());
    });
  } finally {
    await sql.end();
  }
}

/** Adds the same batches to a Redis stream without readers. */
async function addAll(texts: readonly string[], assignments: readonly Assignment[]): Promise<Run> {
  const connection = connect(bench.redis.url, () => {});
  const batches = assignments.flatMap((assignment) => encodeAll(texts, assignment));
  try {
    return await measure(async () => {
      for (let at = 0; at < batches.length; at += 32) {
        await connection.run(async (redis) => {
          const commands = redis.pipeline();
          for (const batch of batches.slice(at, at + 32)) commands.xadd('bench', '*', 'b', batch);
          requireAll(await commands.exec());
        });
      }
    });
  } finally {
    await connection.run((redis) => redis.del('bench'));
    await connection.close();
  }
}

/**
 * Sends batches that were encoded before, one of each attempt in flight: the limit of the gateway
 * when runners cost nothing.
 */
async function sendBatches(
  texts: readonly string[],
  runnerId: string,
  assignments: readonly Assignment[],
): Promise<Run> {
  const senders = new Map(
    assignments.map((assignment) => [
      assignment.attemptId,
      { batches: encodeAll(texts, assignment), next: 0, done: Promise.withResolvers<void>() },
    ]),
  );
  const sendNext = async (attemptId: string) => {
    const batch = senders.get(attemptId)?.batches[senders.get(attemptId)?.next ?? 0];
    if (batch) await bus.append(uplinkShard(attemptId), batch);
  };
  const stop = await hear(bus, runnerId, ({ attemptId, committed }) => {
    const sender = senders.get(attemptId);
    const due = Math.min(((sender?.next ?? 0) + 1) * linesPerBatch, texts.length);
    if (!sender || committed < due) return;
    sender.next++;
    if (sender.next === sender.batches.length) sender.done.resolve();
    sendNext(attemptId).catch(sender.done.reject);
  });
  const run = await measure(async () => {
    await Promise.all([...senders.keys()].map(sendNext));
    await Promise.all([...senders.values()].map(({ done }) => done.promise));
  });
  await stop();
  return run;
}

/**
 * Sends spools that are full when the gateway returns: the code of the supervisor reads, encodes
 * and sends them.
 */
async function sendSpools(
  texts: readonly string[],
  runnerId: string,
  assignments: readonly Assignment[],
  round: number,
): Promise<Run> {
  const spools = await Promise.all(
    assignments.map((_, index) => Spool.create(join(bench.folder, `spool-${round}-${index}`))),
  );
  for (const spool of spools) for (const text of texts) spool.append(recordOf(text));
  await new Promise((resolve) => setTimeout(resolve, 1_000)); // until the spools are on disk
  const uplinks = new Map<string, RecordSender>();
  const stop = await hear(bus, runnerId, (answer) => uplinks.get(answer.attemptId)?.acknowledge(answer));
  const run = await measure(async () => {
    assignments.forEach(({ attemptId, leaseToken }, index) => {
      const spool = spools[index]!;
      const uplink = new RecordSender({
        attemptId,
        leaseToken,
        spool,
        append: (stream, batch) => bus.append(stream, batch),
        renew: () => Promise.reject(new Error('not asked')),
        heartbeatMs: 10_000,
        onDirective: () => {},
      });
      uplinks.set(attemptId, uplink);
    });
    await Promise.all([...uplinks.values()].map((uplink) => uplink.drained()));
  });
  await Promise.all([...uplinks.values()].map((uplink) => uplink.end()));
  await Promise.all(spools.map((spool) => spool.remove()));
  await stop();
  return run;
}

function hear(on: Bus, runnerId: string, listener: (answer: Acknowledgement) => void): Promise<() => Promise<void>> {
  return on.subscribe(channels.runner(runnerId), (message) => {
    const answer = acknowledgement.safeParse(JSON.parse(message)).data;
    if (answer) listener(answer);
  });
}

function batchesOf(texts: readonly string[]): string[][] {
  return Array.from({ length: Math.ceil(texts.length / linesPerBatch) }, (_, index) =>
    texts.slice(index * linesPerBatch, (index + 1) * linesPerBatch),
  );
}

function encodeAll(texts: readonly string[], { attemptId, leaseToken }: Assignment): string[] {
  return batchesOf(texts).map((batch, index) =>
    encodeBatch({
      version: 1,
      attemptId,
      leaseToken,
      first: index * linesPerBatch + 1,
      records: batch.map(recordOf),
    }),
  );
}

async function measure(work: () => Promise<void>): Promise<Run> {
  const before = usage(bench);
  const startedAt = performance.now();
  await work();
  const seconds = (performance.now() - startedAt) / 1000;
  const after = usage(bench);
  const perMillion = (name: keyof typeof before) => ((after[name] - before[name]) / total) * 1e6;
  return {
    rate: total / seconds,
    gateway: perMillion('gateway'),
    postgres: perMillion('postgres'),
    redis: perMillion('redis'),
    here: perMillion('here'),
  };
}

function usage({ gateway, postgres: server, redis }: Deployment) {
  const own = process.cpuUsage();
  return {
    gateway: cpuSeconds(gateway.pid) ?? NaN,
    postgres: cpuSeconds(server.pid()) ?? NaN,
    redis: cpuSeconds(redis.pid()) ?? NaN,
    here: (own.user + own.system) / 1e6,
  };
}

function print(ways: Ways): void {
  const middle = (runs: readonly Run[], name: keyof Run) =>
    quantile(
      runs.map((run) => run[name]),
      0.5,
    );
  const ratio = (runs: readonly Run[]) =>
    quantile(
      runs.map((run, round) => run.rate / (ways['COPY']?.[round]?.rate ?? NaN)),
      0.5,
    );
  console.log(`${figure(total)} lines of ${options.attempts} attempts, medians of ${options.rounds} rounds\n`);
  printTable(
    ['', 'lines/s', 'of COPY', 'CPU s per million lines: gateway', 'Postgres', 'Redis', 'sender'],
    Object.entries(ways).map(([name, runs]) => [
      name,
      figure(middle(runs, 'rate')),
      figure(ratio(runs)),
      ...(['gateway', 'postgres', 'redis', 'here'] as const).map((part) => figure(middle(runs, part))),
    ]),
  );
}
