// Subscriptions over real connections say the same whether each event is executed once for all or for each subscriber:
// every line and event once, in order, whoever is cut, comes back by its cursor, or stops reading for a while.
import { once } from 'node:events';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { liveFigures } from '../../src/metrics-registry.ts';
import { addEvent, changeJob } from '../../src/job/job.ts';
import { commit } from '../../src/live/commit.ts';
import { appendLog } from '../../src/log/append.ts';
import {
  adminToken,
  bearer,
  createProject,
  type Door,
  jsonType,
  openDoor,
  openSocket,
  submitJob,
} from '../support/door.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { until } from '../support/until.ts';
import assert from 'node:assert/strict';

type Batch = { lines?: { seq: number }[]; events?: { message: string }[]; endCursor: string };
type Data = { jobLogs?: Batch; jobEvents?: Batch };

const logs = `subscription ($jobId: ID!, $after: String) {
  jobLogs(jobId: $jobId, after: $after) { lines { seq text } endCursor caughtUp done }
}`;
const events = `subscription ($jobId: ID!, $after: String) {
  jobEvents(jobId: $jobId, after: $after, types: [CHECKPOINT]) { events { id message } endCursor caughtUp done }
}`;

const upTo = (count: number) => Array.from({ length: count }, (_, n) => n + 1);
const count = async (figure: { get(): Promise<{ values: { value: number }[] }> }) =>
  (await figure.get()).values[0]?.value ?? 0;

function numbersOf({ jobLogs, jobEvents }: Data): number[] {
  return jobLogs?.lines?.map(({ seq }) => seq) ?? jobEvents?.events?.map(({ message }) => Number(message)) ?? [];
}

/** The numbers over websockets, each of which is cut after `batchesEach` batches; the next goes on from the cursor. */
function followCut(door: Door, query: string, jobId: string, batchesEach: number) {
  const seen: number[] = [];
  const run = async (last: number) => {
    for (let cursor: string | null = null; seen.at(-1) !== last;) {
      const socket = await openSocket(door.port);
      socket.send({ id: '1', type: 'subscribe', payload: { query, variables: { jobId, after: cursor } } });
      for (let batches = 0; batches < batchesEach && seen.at(-1) !== last; batches++) {
        const { type, payload } = await socket.next();
        assert.equal(type, 'next', JSON.stringify(payload));
        const { data } = payload as { data: Data };
        seen.push(...numbersOf(data));
        cursor = (data.jobLogs ?? data.jobEvents)?.endCursor ?? null;
      }
      await socket.close();
    }
  };
  return { seen, run };
}

/** An event stream and the numbers that came with it. Paused, it reads nothing. */
async function openStream(door: Door, query: string, jobId: string) {
  const headers = { ...jsonType, ...bearer(adminToken), accept: 'text/event-stream' };
  const request = httpRequest({ port: door.port, path: '/graphql', method: 'POST', headers, agent: false });
  request.end(JSON.stringify({ query, variables: { jobId } }));
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  const seen: number[] = [];
  let rest = '';
  response.setEncoding('utf8').on('error', () => {});
  response.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines.filter((one) => one.startsWith('data: '))) {
      seen.push(...numbersOf((JSON.parse(line.slice('data: '.length)) as { data: Data }).data));
    }
  });
  return { seen, response, close: () => void request.destroy() };
}

for (const sharing of ['true', 'false']) {
  suite(`subscriptions with ASTRAML_SHARED_EXECUTION=${sharing}`, () => {
    let door: Door;
    let executions: number;
    before(async () => {
      door = await openDoor({ ASTRAML_SHARED_EXECUTION: sharing, ASTRAML_RATE_LIMIT_POINTS: '0' });
      executions = await count(liveFigures.executions);
      await createProject(door.port, 'p-both');
    });
    after(async () => {
      await until(() => door.gateway.feeds.size === 0);
      const executed = (await count(liveFigures.executions)) > executions;
      await door.close();
      assert.equal(executed, sharing === 'true');
      if (sharing === 'false') await expectNoLeaks();
    });
    const append = (jobId: string, lines: number, bytes: number) =>
      commit(door.gateway.store, (tx) =>
        changeJob(tx, jobId, (locked) => {
          const line = { time: Date.now(), stream: 'STDOUT' as const, text: 'x'.repeat(bytes) };
          return appendLog(tx, locked, 1, Array.from({ length: lines }, () => line)); // prettier-ignore
        }),
      );

    test('that are cut again and again give every line and every event once, in order', async () => {
      const jobId = await submitJob(door.port, 'p-both');
      const rounds = 40;
      const followed = [1, 2, 3, 7, Infinity].flatMap((batchesEach) => [
        { ...followCut(door, logs, jobId, batchesEach), last: rounds * 5 },
        { ...followCut(door, events, jobId, batchesEach), last: rounds },
      ]);
      const ended = Promise.all(followed.map(({ run, last }) => run(last)));
      for (let round = 1; round <= rounds; round++) {
        await append(jobId, 5, 10);
        await commit(door.gateway.store, (tx) =>
          changeJob(tx, jobId, (locked) => addEvent(tx, locked, { type: 'CHECKPOINT', message: `${round}` })),
        );
        await sleep(10);
      }
      await ended;
      for (const { seen, last } of followed) assert.deepEqual(seen, upTo(last));
    });

    test('over event streams that are not read for a while go on with every line', async () => {
      const jobId = await submitJob(door.port, 'p-both');
      const [reading, ...paused] = await Promise.all([0, 1, 2, 3].map(() => openStream(door, logs, jobId)));
      assert.ok(reading);
      for (const { response } of paused) response.pause();
      const demotions = await count(liveFigures.demotions);
      const [batches, each] = [60, 100];
      for (let n = 0; n < batches; n++) {
        await append(jobId, each, 2_000);
        if (n % 20 !== 10) continue;
        for (const { response } of paused.slice(1)) response.resume(); // some go on in the middle, and stop again
        await sleep(20);
        for (const { response } of paused.slice(1)) response.pause();
      }
      await until(() => reading.seen.at(-1) === batches * each, { timeoutMs: 15_000 });
      for (const { seen } of paused) assert.ok(seen.length < batches * each, `${seen.length} lines came`);
      for (const { response } of paused) response.resume();
      const streams = [reading, ...paused];
      await until(() => streams.every(({ seen }) => seen.at(-1) === batches * each), { timeoutMs: 15_000 });
      for (const { seen } of streams) assert.deepEqual(seen, upTo(batches * each));
      assert.ok((await count(liveFigures.demotions)) > demotions, 'they fell behind the ring');
      for (const stream of streams) stream.close();
    });
  });
}
