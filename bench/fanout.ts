// Server CPU per delivery: one log line at a time goes to many subscribers, each on its own socket.
// Compared with a raw `ws` broadcast of the same bytes, graphql-yoga as its documentation shows it,
// and Mercurius. Redis carries the events of all.
import { join } from 'node:path';
import { channels, uplinkShard } from '../src/bus/bus.ts';
import { connect } from '../src/bus/redis-connection.ts';
import { redisBus } from '../src/bus/redis.ts';
import { encodeBatch } from '../src/protocol/record.ts';
import { type Child, spawnNode } from '../test/support/child.ts';
import { freePort } from '../test/support/port.ts';
import { claimJobs, deploy, profileArgs, readNumbers } from './support/deployment.ts';
import { figure, ownCpuSeconds, printMachine, printTable, residentBytes } from './support/measure.ts';
import { openSubscribers, type Subscribers, type Subscription } from './support/subscribers.ts';

const options = readNumbers({ subscribers: 200, events: 20, bytes: 200 });

type Server = { name: string; process: Child; url: string; subscription: Subscription | null; firstMessages: number };
type Result = { name: string; cpu: number; alone: number; memory: number | null; bytes: number; seconds: number };

const selection = '{ lines { seq time stream text } endCursor caughtUp done }';
const peerQuery = `subscription ($jobId: ID!) { jobLogs(jobId: $jobId) ${selection} }`;
const ownQuery = `subscription ($jobId: ID!) { jobLogs(jobId: $jobId, last: 0) ${selection} }`;
const text = (index: number) => `${index} `.padEnd(options.bytes, 'x');

/**
 * Events before each measurement. The cost of an event without subscribers is subtracted, and must
 * not be that of a cold start.
 */
const warmUp = 40;

printMachine();
const results: Result[] = [];
const bench = await deploy({ nodeArgs: profileArgs() });
try {
  results.push(await measureRaw(bench.redis.url));
  results.push(await measureOurs('AstraML', bench));
  const single = await deploy({ env: { ASTRAML_SHARED_EXECUTION: 'false' } });
  try {
    results.push(await measureOurs('AstraML, an execution each', single));
  } finally {
    await single.stop();
  }
  results.push(await measureYoga(bench.redis.url));
  results.push(await measureMercurius(bench.redis.url));
} finally {
  await bench.stop();
}
const floor = results[0]?.cpu ?? NaN;
console.log(`${options.subscribers} subscribers, ${options.events} events\n`);
printTable(
  [
    '',
    'µs of CPU per delivery',
    'of raw ws',
    'µs per event, nobody there',
    'KiB per subscriber',
    'bytes',
    'ms per event',
  ],
  results.map(({ name, cpu, alone, memory, bytes, seconds }) => [
    name,
    figure(cpu * 1e6),
    figure(cpu / floor),
    figure(alone * 1e6),
    figure(memory === null ? null : memory / 1024),
    figure(bytes),
    figure(seconds * 1000),
  ]),
);

async function measureOurs(name: string, to: typeof bench): Promise<Result> {
  const bus = redisBus(to.redis.url);
  const { runnerId, assignments } = await claimJobs(to, 1);
  const { attemptId = '', leaseToken = '', job } = assignments[0] ?? {};
  let number = 0;
  let acknowledged = () => {};
  const stop = await bus.subscribe(channels.runner(runnerId), () => acknowledged());
  const emit = async () => {
    const record = { type: 'line', time: Date.now(), stream: 'STDOUT', text: text(number) };
    const batch = encodeBatch({ version: 1, attemptId, leaseToken, first: ++number, records: [record] });
    const committed = new Promise<void>((resolve) => (acknowledged = resolve));
    await bus.append(uplinkShard(attemptId), batch);
    await committed;
  };
  const url = `${to.url.replace('http', 'ws')}/graphql`;
  const subscription = { query: ownQuery, variables: { jobId: job?.id }, token: to.token };
  // `firstMessages` is 1, since the first batch only tells that the stream is live.
  const result = await measure({ name, process: to.gateway, url, subscription, firstMessages: 1 }, emit);
  await stop();
  await bus.close();
  return result;
}

/** Measures a server that sends the payload of our messages, byte for byte, to all sockets. */
async function measureRaw(redisUrl: string): Promise<Result> {
  const [process, port] = await startPeer('raw', redisUrl);
  const server = { name: 'raw ws', process, url: `ws://127.0.0.1:${port}`, subscription: null, firstMessages: 0 };
  const wrap = (payload: string) => `{"id":"1","type":"next","payload":{"data":{"jobLogs":${payload}}}}`;
  return publishing(redisUrl, (publish) => measure(server, (index) => publish(wrap(payloadOf(index))))).finally(() =>
    process.stop(),
  );
}

async function measureYoga(redisUrl: string): Promise<Result> {
  const [process, port] = await startPeer('yoga', redisUrl);
  const subscription = { query: peerQuery, variables: { jobId: 'job_1' }, token: null };
  const url = `ws://127.0.0.1:${port}/graphql`;
  const server = { name: 'graphql-yoga', process, url, subscription, firstMessages: 0 };
  return publishing(redisUrl, (publish) => measure(server, (index) => publish(payloadOf(index)))).finally(() =>
    process.stop(),
  );
}

async function measureMercurius(redisUrl: string): Promise<Result> {
  const [process, port] = await startPeer('mercurius', redisUrl);
  const subscription = { query: peerQuery, variables: { jobId: 'job_1' }, token: null };
  const url = `ws://127.0.0.1:${port}/graphql`;
  const emit = async (index: number) => {
    const headers = { 'content-type': 'application/json' };
    await fetch(`http://127.0.0.1:${port}/publish`, { method: 'POST', headers, body: payloadOf(index) });
  };
  return measure({ name: 'Mercurius', process, url, subscription, firstMessages: 0 }, emit).finally(() =>
    process.stop(),
  );
}

function payloadOf(index: number): string {
  const line = { seq: index + 1, time: new Date().toISOString(), stream: 'STDOUT', text: text(index) };
  const endCursor = 'WyJsb2c6am9iXzAxa2N2eTRhM2VmNzd0cHZ2Z2V0eWc3NnlzIiwxXQ';
  return JSON.stringify({ lines: [line], endCursor, caughtUp: true, done: false });
}

async function publishing(
  redisUrl: string,
  work: (publish: (message: string) => Promise<void>) => Promise<Result>,
): Promise<Result> {
  const connection = connect(redisUrl, () => {});
  try {
    return await work(async (message) => {
      await connection.run((redis) => redis.publish('bench', message));
    });
  } finally {
    await connection.close();
  }
}

async function startPeer(name: string, redisUrl: string): Promise<[Child, number]> {
  const port = await freePort();
  const file = join(import.meta.dirname, 'peers', `${name}.js`);
  const child = spawnNode([file], { env: { PORT: String(port), REDIS_URL: redisUrl, NODE_ENV: 'production' } });
  await child.untilLine(/^listening/, { timeoutMs: 30_000 });
  return [child, port];
}

/**
 * Measures a server. Each event is delivered to all subscribers before the next. The cost of the
 * same events without subscribers is subtracted.
 */
async function measure(server: Server, emit: (index: number) => Promise<void>): Promise<Result> {
  const { process: measured, firstMessages } = server;
  const cpu = () => ownCpuSeconds(measured.pid) ?? NaN;
  for (let index = 0; index < warmUp; index++) await emit(index);
  await pause(300);
  const before = cpu();
  for (let index = 0; index < options.events; index++) await emit(index);
  await pause(300);
  const alone = (cpu() - before) / options.events;

  const memoryBefore = residentBytes(measured.pid);
  const subscribers: Subscribers = await openSubscribers(server.url, options.subscribers, server.subscription);
  await subscribers.until(firstMessages);
  await pause(1_000);
  const memoryAfter = residentBytes(measured.pid);
  const one = async (index: number) => {
    await emit(index);
    await subscribers.until(firstMessages + index + 1);
  };
  for (let index = 0; index < warmUp; index++) await one(index);
  await pause(300);
  const start = cpu();
  const startedAt = performance.now();
  for (let index = warmUp; index < warmUp + options.events; index++) await one(index);
  const seconds = (performance.now() - startedAt) / 1000 / options.events;
  await pause(300);
  const used = (cpu() - start) / options.events;
  const bytes = subscribers.lastBytes();
  await subscribers.close();
  const memory =
    memoryBefore === null || memoryAfter === null ? null : (memoryAfter - memoryBefore) / options.subscribers;
  return { name: server.name, cpu: (used - alone) / options.subscribers, alone, memory, bytes, seconds };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
