// Growth of cost: per delivery with the number of subscribers, and per page of history with the
// number of stored lines.
import { channels, uplinkShard } from '../src/bus/bus.ts';
import { memoryBus } from '../src/bus/memory.ts';
import { redisBus } from '../src/bus/redis.ts';
import { openDatabase } from '../src/database/database.ts';
import { changeJob } from '../src/job/job.ts';
import { commit } from '../src/live/commit.ts';
import { encodeCursor } from '../src/live/cursor.ts';
import { appendLog } from '../src/log/append.ts';
import { encodeBatch } from '../src/protocol/record.ts';
import { submit } from '../test/support/stack.ts';
import { claimJobs, deploy, profileArgs, project, readNumbers } from './support/deployment.ts';
import { figure, ownCpuSeconds, printMachine, printTable, quantile, residentBytes } from './support/measure.ts';
import { openSubscribers } from './support/subscribers.ts';

const options = readNumbers({ subscribers: 5_000, lines: 1_000_000 });
const events = 10;
const pages = 20;
const linesPerPage = 100;

printMachine();
const bench = await deploy({ nodeArgs: profileArgs() });
const cpu = () => ownCpuSeconds(bench.gateway.pid) ?? NaN;
try {
  await measureDeliveries([1, 10, 100, 1_000, 5_000, 20_000].filter((count) => count <= options.subscribers));
  await measurePages([1e3, 1e4, 1e5, 1e6, 1e7].filter((count) => count <= options.lines));
} finally {
  await bench.stop();
}

async function measureDeliveries(counts: readonly number[]): Promise<void> {
  const bus = redisBus(bench.redis.url);
  const rows: string[][] = [];
  for (const count of counts) {
    const { runnerId, assignments } = await claimJobs(bench, 1);
    const { attemptId = '', leaseToken = '', job } = assignments[0] ?? {};
    let [number, acknowledged] = [0, () => {}];
    const stop = await bus.subscribe(channels.runner(runnerId), () => acknowledged());
    const emit = async () => {
      const record = { type: 'line', time: Date.now(), stream: 'STDOUT', text: `${number} `.padEnd(100, 'x') };
      const batch = encodeBatch({ version: 1, attemptId, leaseToken, first: ++number, records: [record] });
      const committed = new Promise<void>((resolve) => (acknowledged = resolve));
      await bus.append(uplinkShard(attemptId), batch);
      await committed;
    };
    const memoryBefore = residentBytes(bench.gateway.pid) ?? NaN;
    const subscribers = await openSubscribers(`${bench.url.replace('http', 'ws')}/graphql`, count, {
      query: `subscription ($jobId: ID!) { jobLogs(jobId: $jobId, last: 0) { lines { seq time stream text } endCursor } }`,
      variables: { jobId: job?.id },
      token: bench.token,
    });
    await subscribers.until(1);
    const memory = ((residentBytes(bench.gateway.pid) ?? NaN) - memoryBefore) / count / 1024;
    await emit();
    await subscribers.until(2);
    const before = cpu();
    const startedAt = performance.now();
    for (let index = 0; index < events; index++) {
      await emit();
      await subscribers.until(index + 3);
    }
    const ms = (performance.now() - startedAt) / events;
    const used = ((cpu() - before) / events) * 1e6;
    rows.push([figure(count), figure(used / count), figure(used), figure(ms), figure(memory)]);
    await subscribers.close();
    await stop();
  }
  await bus.close();
  printTable(['subscribers', 'µs of CPU per delivery', 'per event', 'ms to the last one', 'KiB each'], rows);
  console.log();
}

async function measurePages(counts: readonly number[]): Promise<void> {
  const rows: string[][] = [];
  for (const count of counts) {
    const { id } = await submit(bench.client, project, { logs: { maxBytes: 1e12 } });
    await storeLines(id, count);
    const middle = () => encodeCursor(`log:${id}`, [Math.floor(Math.random() * (count - linesPerPage))]);
    const ways = [
      () => ({ first: linesPerPage, after: middle() }),
      () => ({ last: linesPerPage }),
      () => ({ first: linesPerPage, filter: { search: 'nothing like this' } }),
    ];
    const cells: string[] = [];
    for (const way of ways) {
      const times: number[] = [];
      const before = cpu();
      for (let page = 0; page < pages; page++) {
        const startedAt = performance.now();
        await readPage(id, way());
        times.push(performance.now() - startedAt);
      }
      cells.push(figure(quantile(times, 0.5)), figure(((cpu() - before) / pages) * 1000));
    }
    rows.push([figure(count), ...cells]);
  }
  const heads = ['in the middle', 'the tail', 'search, no match'].flatMap((way) => [`${way}: ms`, 'CPU ms']);
  printTable([`stored lines; a page of ${linesPerPage}`, ...heads], rows);
}

/** Stores lines with `appendLog`, as the intake does, without a runner. */
async function storeLines(jobId: string, count: number): Promise<void> {
  const [database, bus] = [await openDatabase({ url: bench.databaseUrl, dataDir: '' }), memoryBus()];
  const time = Date.now();
  for (let stored = 0; stored < count; stored += 10_000) {
    await commit({ database, bus }, (tx) =>
      changeJob(tx, jobId, async (locked) => {
        for (let first = stored; first < Math.min(stored + 10_000, count); first += 1_000) {
          const lines = Array.from({ length: Math.min(1_000, count - first) }, (_, index) => ({
            time,
            stream: 'STDOUT' as const,
            text: `step ${first + index} loss=${(index / 1e3).toFixed(6)} lr=3.0e-05`.padEnd(100, '.'),
          }));
          await appendLog(tx, locked, 1, lines);
        }
      }),
    );
  }
  await bus.close();
  await database.close();
}

async function readPage(id: string, args: Record<string, unknown>): Promise<void> {
  const query = `query ($id: ID!, $first: Int, $last: Int, $after: String, $filter: LogFilter) {
    job(id: $id) { logs(first: $first, last: $last, after: $after, filter: $filter) {
      edges { cursor node { seq time stream text } } pageInfo { hasNextPage endCursor }
    } }
  }`;
  await bench.client.request(query, { id, ...args });
}
