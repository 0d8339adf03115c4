// Under load: who does not read harms nobody and takes no memory, and who comes and goes leaves nothing behind. The gateway
// runs in a process of its own, which is measured.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { after, suite, test } from 'node:test';
import { Redis } from 'ioredis';
import { WebSocket } from 'ws';
import { skipUnless } from '../support/absent.ts';
import { adminToken, bearer, createProject, jsonType, openSocket, submitJob } from '../support/door.ts';
import { startMeasured } from '../support/measured.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

after(() => expectNoLeaks());

type Next = { type: string; payload: { data: { jobLogs: { lines: { seq: number }[] } } } };

const logs = `subscription Logs($jobId: ID!, $after: String) {
  jobLogs(jobId: $jobId, after: $after) { lines { seq text } endCursor caughtUp done }
}`;

/** A websocket that follows a log and takes note of the numbers of its lines; paused, it never reads. */
async function openFollower(
  port: number,
  jobId: string,
  paused: boolean,
): Promise<{ seqs: number[]; socket: WebSocket }> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/graphql`, 'graphql-transport-ws');
  await once(socket, 'open');
  const seqs: number[] = [];
  const init = { type: 'connection_init', payload: { Authorization: `Bearer ${adminToken}` } };
  const query = 'subscription ($id: ID!) { jobLogs(jobId: $id, last: 0) { lines { seq text } } }';
  socket.on('message', (data: Buffer) => {
    const message = JSON.parse(data.toString('utf8')) as Next;
    if (message.type === 'connection_ack') {
      if (paused) setTimeout(() => socket.pause(), 200);
      socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query, variables: { id: jobId } } }));
    }
    if (message.type === 'next') for (const { seq } of message.payload.data.jobLogs.lines) seqs.push(seq);
  });
  socket.send(JSON.stringify(init));
  return { seqs, socket };
}

/** An event stream of which only the head is read. */
async function openUnread(port: number, jobId: string): Promise<ClientRequest> {
  const headers = { ...jsonType, ...bearer(adminToken), accept: 'text/event-stream' };
  const request = httpRequest({ port, host: '127.0.0.1', path: '/graphql', method: 'POST', headers, agent: false });
  request.on('error', () => {});
  request.end(JSON.stringify({ query: logs, variables: { jobId } }));
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  response.pause();
  return request;
}

suite('those who never read', () => {
  test('take no memory worth the name, and harm nobody', async () => {
    const gateway = await startMeasured({ ASTRAML_RATE_LIMIT_POINTS: '0', LOG_LEVEL: 'error' });
    try {
      const { port } = gateway;
      await createProject(port, 'p-slow');
      const jobId = await submitJob(port, 'p-slow');
      await gateway.feed({ lines: 500, bytes: 1_000, batch: 100 }); // the gateway is warm
      const head = 500;
      const live = await Promise.all(Array.from({ length: 100 }, () => openFollower(port, jobId, false)));
      const stuck = await Promise.all(Array.from({ length: 5 }, () => openFollower(port, jobId, true)));
      const unread = await Promise.all(Array.from({ length: 5 }, () => openUnread(port, jobId)));
      await new Promise((resolve) => setTimeout(resolve, 500));
      const before = await gateway.memory();
      await gateway.feed({ lines: 10_000, bytes: 1_000, batch: 50 });
      await until(() => live.every(({ seqs }) => (seqs.at(-1) ?? 0) >= head + 10_000), { timeoutMs: 30_000 });
      const wanted = Array.from({ length: 10_000 }, (_, n) => head + n + 1);
      for (const { seqs } of live) assert.deepEqual(seqs, wanted);
      for (const { socket } of stuck) assert.equal(socket.readyState, socket.OPEN);
      const after = await gateway.memory();
      const grown = after.heapUsed + after.external - before.heapUsed - before.external;
      assert.ok(grown < 64 * 1024 * 1024, `${Math.round(grown / 1024 / 1024)} MB`);
      const buffered = await gateway.figure('buffered_bytes');
      assert.ok(buffered < 10 * 1.2 * 1024 * 1024, `${buffered} bytes wait`);
      for (const { socket } of stuck) socket.resume(); // and who reads again gets the rest
      const isWhole = ({ seqs }: { seqs: number[] }) => seqs.at(-1) === head + 10_000;
      await until(() => stuck.every(isWhole), { timeoutMs: 20_000 });
      for (const { seqs } of stuck) assert.deepEqual(seqs, wanted);
      assert.ok((await gateway.figure('demotions_total')) >= 5);
      for (const { socket } of [...live, ...stuck]) socket.terminate();
      for (const request of unread) request.destroy();
      await until(async () => (await gateway.figure('feeds')) === 0);
      assert.equal(await gateway.figure('followers'), 0);
    } finally {
      await gateway.stop();
    }
  });
});

/** As many come and go, in all the ways there are; more by ASTRAML_TEST_CYCLES. */
const cycles = Number(process.env['ASTRAML_TEST_CYCLES'] ?? 2_000);

suite('those who come and go', skipUnless('redis'), () => {
  test(`leave nothing behind after ${cycles} subscriptions that were completed, cut or never awaited`, async () => {
    const redis = await startRedis();
    const watch = new Redis(redis.url);
    const limits = { ASTRAML_RATE_LIMIT_POINTS: '0' };
    const gateway = await startMeasured({ ...limits, REDIS_URL: redis.url, LOG_LEVEL: 'error' });
    const { port } = gateway;
    const resources = async () => {
      const all = await gateway.resources();
      return {
        timers: all.filter((name) => name === 'Timeout').length,
        sockets: all.filter((name) => /^TCPSocket/.test(name)).length,
      };
    };
    try {
      await createProject(port, 'p-cycles');
      const jobs = await Promise.all(Array.from({ length: 5 }, () => submitJob(port, 'p-cycles')));
      const comeAndGo = async (times: number) => {
        let socket = await openSocket(port);
        for (let n = 0; n < times; n++) {
          const variables = { jobId: jobs[n % jobs.length] };
          const [id, query] = [`${n}`, n % 7 ? logs : logs.replace('endCursor', 'gaps { reason }')];
          const seen = socket.received.length;
          socket.send({ id, type: 'subscribe', payload: { query, variables } });
          if (n % 3) await until(() => socket.received.length > seen, { timeoutMs: 10_000 });
          if (n % 4) socket.send({ id, type: 'complete' });
          if (n % 20 < 19) continue;
          await socket.close();
          socket = await openSocket(port);
        }
        await socket.close();
      };
      const all = async (times: number) => {
        await Promise.all(Array.from({ length: 10 }, () => comeAndGo(times / 10)));
        await until(async () => (await gateway.figure('followers')) + (await gateway.figure('feeds')) === 0, {
          timeoutMs: 10_000,
        });
        const channels = async () => (await watch.pubsub('CHANNELS', 'astraml:job:*')) as string[];
        await until(async () => (await channels()).length === 0, { timeoutMs: 5_000 });
      };
      await all(500); // what is made once is made
      const [memory, taken] = [await gateway.memory(), await resources()];
      await all(cycles);
      const grown = (await gateway.memory()).heapUsed - memory.heapUsed;
      assert.ok(grown < 6 * 1024 * 1024, `the heap has grown by ${(grown / 1024 / 1024).toFixed(1)} MB`);
      await until(async () => (await resources()).timers <= taken.timers + 1, { timeoutMs: 8_000 });
      await until(async () => (await resources()).sockets <= taken.sockets, { timeoutMs: 8_000 });
      assert.equal(await gateway.figure('buffered_bytes'), 0);
    } finally {
      await gateway.stop();
      watch.disconnect();
      await redis.stop();
    }
  });
});
