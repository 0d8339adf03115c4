// Cost of idle runners: many wait for work at one gateway while jobs are submitted one after the
// other. Postgres counts the transactions, so that figures of any two commits can be compared.
import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import { claimAnswer, registerAnswer } from '../src/protocol/control.ts';
import { call } from '../test/support/feeder.ts';
import { submit } from '../test/support/stack.ts';
import { deploy, profileArgs, project, readNumbers } from './support/deployment.ts';
import { cpuSeconds, figure, ownCpuSeconds, printMachine, printTable, quantile } from './support/measure.ts';

const options = readNumbers({ runners: 200, jobs: 50, pause: 100 });
/** Seconds that a claim waits, as with real runners. */
const waitSeconds = 20;

printMachine();
const bench = await deploy({ nodeArgs: profileArgs() });
const sql = postgres(bench.databaseUrl, { max: 1, onnotice: () => {} });
const claimedAt = new Map<string, number>();
const ending = new AbortController();
try {
  const waiting = Promise.all(Array.from({ length: options.runners }, (_, index) => wait(index)));
  waiting.catch(() => {}); // no unhandled rejection: `await waiting` below throws the error
  await sleep(3_000);
  const idle = await measure(() => sleep(10_000));
  const submitted = new Map<string, number>();
  const tookMs: number[] = [];
  const busy = await measure(async () => {
    for (let n = 0; n < options.jobs; n++) {
      const startedAt = performance.now();
      const { id } = await submit(bench.client, project, { resources: { gpus: 1 } });
      submitted.set(id, startedAt);
      tookMs.push(performance.now() - startedAt);
      await sleep(options.pause);
    }
    while (claimedAt.size < options.jobs) await sleep(20);
  });
  const claimMs = [...submitted].map(([id, at]) => (claimedAt.get(id) ?? NaN) - at);
  print({ idle, busy, tookMs, claimMs });
  ending.abort();
  await waiting;
} finally {
  await sql.end();
  await bench.stop();
}

/** Signs on a runner with one GPU, which waits for one job, keeps it, and claims no more. */
async function wait(index: number): Promise<void> {
  const gpus = [{ index: 0, model: 'virtual', memoryBytes: 0 }];
  const sign = { name: `idle-${index}`, version: '0', labels: [], gpus, bootId: 'boot' };
  const { runnerId } = registerAnswer.parse(await call(bench.url, bench.runnerToken, 'register', sign));
  for (let n = 0; !ending.signal.aborted; n++) {
    const request = { runnerId, freeGpus: [0], requestId: `${index}-${n}`, waitSeconds };
    const { assignment } = claimAnswer.parse(await call(bench.url, bench.runnerToken, 'claim', request));
    if (assignment) return void claimedAt.set(assignment.job.id, performance.now());
  }
}

type Cost = { seconds: number; transactions: number; gateway: number; postgres: number };

async function measure(work: () => Promise<unknown>): Promise<Cost> {
  const [startedAt, before] = [performance.now(), await readCounters()];
  await work();
  const after = await readCounters();
  return {
    seconds: (performance.now() - startedAt) / 1000,
    transactions: after.transactions - before.transactions,
    gateway: after.gateway - before.gateway,
    postgres: after.postgres - before.postgres,
  };
}

async function readCounters(): Promise<Omit<Cost, 'seconds'>> {
  await sleep(1_100); // Postgres publishes the counters of a session once a second
  const [row] = await sql<{ transactions: string }[]>`
    select xact_commit + xact_rollback as transactions from pg_stat_database where datname = current_database()`;
  return {
    transactions: Number(row?.transactions),
    gateway: ownCpuSeconds(bench.gateway.pid) ?? NaN,
    postgres: cpuSeconds(bench.postgres.pid()) ?? NaN,
  };
}

function print(run: { idle: Cost; busy: Cost; tookMs: number[]; claimMs: number[] }): void {
  const { idle, busy, tookMs, claimMs } = run;
  const row = (what: string, cost: (measured: Cost) => number) => [
    what,
    figure(cost(busy)),
    figure(cost(busy) / options.jobs),
    figure(cost(idle) / idle.seconds),
  ];
  printTable(
    ['', `${options.jobs} jobs`, 'a job', 'idle, a second'],
    [
      row('transactions', ({ transactions }) => transactions),
      row('gateway CPU, ms', ({ gateway }) => gateway * 1e3),
      row('Postgres CPU, ms', (measured) => measured.postgres * 1e3),
      row('seconds', ({ seconds }) => seconds),
    ],
  );
  for (const [what, values] of [
    ['submit → claimed', claimMs],
    ['submitJob', tookMs],
  ] as const) {
    console.log(`${what}: p50 ${figure(quantile(values, 0.5))} ms, p99 ${figure(quantile(values, 0.99))} ms`);
  }
}
