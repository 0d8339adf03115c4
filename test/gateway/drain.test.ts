// Drain: a gateway that stops lets its clients go a few at a time, loses none of what they follow, and ends in time
// whatever hangs.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { resolve } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { redisBus } from '../../src/bus/redis.ts';
import { type Client, createClient } from '../../src/client/client.ts';
import {
  createConnectionDrain,
  type LastingConnection,
  planClosings,
} from '../../src/gateway/http/connection-drain.ts';
import { newTokenText } from '../../src/project/token.ts';
import { skipUnless } from '../support/absent.ts';
import { type Child, spawnNode } from '../support/child.ts';
import { openSocket, post } from '../support/door.ts';
import { call, openFeeder } from '../support/feeder.ts';
import { freePort } from '../support/port.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { type RedisServer, startRedis } from '../support/redis.ts';
import { newSecretKeys } from '../support/secret-keys.ts';
import { createProject, submit } from '../support/stack.ts';
import { until } from '../support/until.ts';

const binary = resolve(import.meta.dirname, '../../bin/astraml.mjs');

/** The largest share of the times that falls into any window of this length. */
function densest(times: readonly number[], windowMs: number): number {
  const sorted = times.toSorted((a, b) => a - b);
  const counts = sorted.map((from) => sorted.filter((at) => at >= from && at < from + windowMs).length);
  return Math.max(...counts) / times.length;
}

after(() => expectNoLeaks());

suite('The plan of the closings', () => {
  test('spreads many over the whole time, none of whose parts gets many more than its share', () => {
    for (const count of [100, 1_000]) {
      const plan = planClosings(count, 7_000);
      assert.equal(plan.length, count);
      assert.ok(plan.every((at, index) => at >= (plan[index - 1] ?? 0) && at < 7_000));
      assert.ok(densest(plan, 500) < 0.1, `${densest(plan, 500)} of ${count}`);
    }
  });

  test('makes a few not wait for the time of many', () => {
    assert.deepEqual(planClosings(0, 7_000), []);
    assert.ok(planClosings(3, 7_000).every((at) => at < 300));
  });
});

suite('A drain', () => {
  const never = new AbortController().signal;
  /** A connection that leaves at once when it is asked to, unless it is deaf. */
  const connect = (drain: ReturnType<typeof createConnectionDrain>, deaf = false) => {
    const seen = { closed: 0, terminated: 0 };
    const connection: LastingConnection = {
      close() {
        seen.closed++;
        if (!deaf) leave();
      },
      terminate() {
        seen.terminated++;
        leave();
      },
    };
    const leave = drain.add(connection);
    return { seen, leave };
  };

  test('asks everybody once, and is over when they have left', async () => {
    const drain = createConnectionDrain();
    const all = Array.from({ length: 20 }, () => connect(drain).seen);
    const began = performance.now();
    assert.equal(await drain.run({ spreadMs: 100, endMs: 5_000, hurry: never }), 0);
    assert.ok(performance.now() - began < 1_000);
    assert.deepEqual(all, Array(20).fill({ closed: 1, terminated: 0 }));
    assert.equal(drain.size, 0);
  });

  test('cuts off who stays, when the time is over', async () => {
    const drain = createConnectionDrain();
    const { seen } = connect(drain, true);
    connect(drain);
    const began = performance.now();
    assert.equal(await drain.run({ spreadMs: 20, endMs: 300, hurry: never }), 1);
    const ms = performance.now() - began;
    assert.ok(ms >= 290 && ms < 1_000, `${ms} ms`);
    assert.equal(seen.terminated, 1);
  });

  test('in a hurry asks all at once, and waits half a second for them', async () => {
    const drain = createConnectionDrain();
    for (let n = 0; n < 100; n++) connect(drain, n === 0);
    const hurry = new AbortController();
    const began = performance.now();
    setTimeout(() => hurry.abort(), 50);
    assert.equal(await drain.run({ spreadMs: 10_000, endMs: 20_000, hurry: hurry.signal }), 1);
    assert.ok(performance.now() - began < 2_000);
  });
});

suite('A gateway that gets SIGTERM', skipUnless('own postgres', 'own redis'), () => {
  const [token, other, runnerToken] = [newTokenText(), newTokenText(), newTokenText()];
  const seconds = 5;
  const children: Child[] = [];
  let postgres: PostgresServer;
  let redis: RedisServer;
  let env: Record<string, string>;
  let client: Client;

  async function serve(
    port = 0,
    extra: Record<string, string> = {},
  ): Promise<{ child: Child; port: number; url: string }> {
    const child = spawnNode([binary, 'serve'], { env: { ...env, PORT: String(port), ...extra } });
    children.push(child);
    const [, url = ''] = await child.untilLine(/^listening on (\S+)$/, { timeoutMs: 30_000 });
    return { child, url, port: Number(new URL(url).port) };
  }
  const assertEnds = async (child: Child, maxMs = seconds * 1_000) => {
    const began = performance.now();
    child.kill('SIGTERM');
    assert.deepEqual(await child.untilEnd({ timeoutMs: 20_000 }), { code: 0, signal: null }, child.output());
    const ms = performance.now() - began;
    assert.ok(ms < maxMs, `${ms} ms`);
    assert.doesNotMatch(child.output(), /unhandled|"msg":"bug"/i);
    return ms;
  };

  before(async () => {
    [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
    env = {
      DATABASE_URL: (await createDatabase(postgres)).url,
      REDIS_URL: redis.url,
      ASTRAML_BOOTSTRAP_TOKEN: token,
      ASTRAML_BOOTSTRAP_RUNNER_TOKEN: runnerToken,
      ASTRAML_SECRET_KEYS: newSecretKeys('k1'),
      ASTRAML_SHUTDOWN_SECONDS: String(seconds),
      ASTRAML_MAX_SOCKETS_PER_TOKEN: '2000',
      ASTRAML_METRICS_PORT: '0',
    };
    const { child, url } = await serve();
    client = createClient({ url, token });
    await createProject(client, 'p-drain', ['true']);
    await child.stop();
  });
  after(async () => {
    await Promise.all(children.map((child) => child.stop()));
    await Promise.all([postgres.stop(), redis.stop()]);
  });

  test('lets a thousand sockets go over its time, and whoever follows loses no line', async () => {
    const first = await serve(await freePort());
    client = createClient({ url: first.url, token });
    const bus = redisBus(redis.url);
    const job = await submit(client, 'p-drain');
    const feeder = await openFeeder(first.url, runnerToken, bus);

    const followers = Array.from({ length: 5 }, () => followTexts(client, job.id));
    const idle = await openMany(first.port, 1_000, token);
    const paused = await openMany(first.port, 5, token);
    for (const socket of paused) socket.pause();
    const closes: { at: number; code: number }[] = [];
    for (const socket of idle) socket.once('close', (code) => closes.push({ at: performance.now(), code }));
    let n = 0;
    let feeding = true;
    const fed = (async () => {
      for (; feeding; await sleep(20)) await feeder.lines([`line ${n++}`]);
    })();
    await until(() => followers.every(({ texts }) => texts.length > 5));

    const ended = assertEnds(first.child);
    await sleep(200);
    const ready = await fetch(`${first.url}/readyz`);
    assert.deepEqual([ready.status, ((await ready.json()) as { status: string }).status], [503, 'stopping']);
    await assert.rejects(openSocket(first.port, { token }), /503/);
    const query = `subscription { jobLogs(jobId: "${job.id}") { endCursor } }`;
    const refused = await post(first.port, { query, token }, { accept: 'text/event-stream' });
    assert.equal(refused.status, 503);
    assert.match(refused.text, /"code":"UNAVAILABLE"/);
    assert.equal((await post(first.port, { query: '{ __typename }', token })).status, 200);
    await ended;
    await until(() => closes.length === 1_000);
    assert.deepEqual([...new Set(closes.map(({ code }) => code))], [1012]);
    const most = densest(closes.map(({ at }) => at), seconds * 50); // prettier-ignore
    assert.ok(most <= 0.2, `${most} of the closes in 5 % of the time`); // all of them without a plan, 0.05 by it
    assert.match(first.child.output(), /"connections":10\d\d,"cutOff":5,/);

    const second = await serve(first.port);
    feeding = false;
    await fed;
    await feeder.finish();
    const expected = Array.from({ length: n }, (_, index) => `line ${index}`);
    for (const { texts, done } of followers) {
      await done;
      assert.deepEqual(texts, expected);
    }
    for (const socket of paused) socket.terminate();
    await bus.close();
    await second.child.stop();
  });

  test('answers requests in flight and a runner that waits, and cuts event streams', async () => {
    const { child, url, port } = await serve();
    client = createClient({ url, token });
    const { id } = await submit(client, 'p-drain', { priority: -100 });
    const stream = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        authorization: `Bearer ${token}`,
        accept: 'text/event-stream',
      },
      body: JSON.stringify({ query: `subscription { jobLogs(jobId: "${id}") { endCursor } }` }),
    });
    const reader = stream.body?.getReader();
    await reader?.read();
    const sign = { name: 'waits', version: '0', labels: [], gpus: [], bootId: 'x' };
    const { runnerId } = (await call(url, runnerToken, 'register', sign)) as { runnerId: string };
    const claim = { runnerId, freeGpus: [], requestId: 'r', waitSeconds: 20 };
    const waiting = call(url, runnerToken, 'claim', claim);
    const slow = beginPost(port, token);
    await until(async () => (await fetch(`${url}/livez`)).status === 200);
    await sleep(300); // the claim waits
    const ended = assertEnds(child);
    assert.deepEqual(await waiting, { assignment: null });
    await assert.rejects(call(url, runnerToken, 'claim', { ...claim, requestId: 's' }), /503.*stopping|fetch failed/);
    assert.equal(await slow.finish(), 200);
    await assert.rejects(async () => {
      while (!(await reader?.read())?.done);
    }, 'cut, not completed');
    await ended;
  });

  test('ends in time while Postgres and Redis hang', async () => {
    const { child, port } = await serve(0, { ASTRAML_SHUTDOWN_SECONDS: '3' });
    const [socket] = await openMany(port, 1, token);
    socket?.pause();
    await postgres.kill('SIGSTOP');
    await redis.kill('SIGSTOP');
    try {
      const hanging = beginPost(port, token).finish().catch(() => {}); // prettier-ignore
      await sleep(100);
      // It ends by itself after 2.85 s. Without that it would wait for the servers, 10 s and more.
      await assertEnds(child, 6_000);
      await hanging;
    } finally {
      socket?.terminate();
      await postgres.kill('SIGCONT');
      await redis.kill('SIGCONT');
    }
  });

  test('twice is in a hurry', async () => {
    const { child, port } = await serve();
    const sockets = await openMany(port, 50, other, false);
    for (const socket of sockets.slice(0, 3)) socket.pause();
    const ended = assertEnds(child, 3_000);
    setTimeout(() => child.kill('SIGTERM'), 200);
    await ended;
    for (const socket of sockets) socket.terminate();
  });
});

function followTexts(client: Client, jobId: string): { texts: string[]; done: Promise<void> } {
  const texts: string[] = [];
  const query = `subscription ($jobId: ID!, $after: String) {
    jobLogs(jobId: $jobId, after: $after) { lines { text } endCursor done }
  }`;
  const follow = async () => {
    for await (const { lines } of client.follow<{ lines: { text: string }[] }>(query, { jobId })) {
      texts.push(...lines.map(({ text }) => text));
    }
  };
  return { texts, done: follow() };
}

/** Plain websockets, acknowledged unless `init` is false. */
async function openMany(port: number, count: number, token: string, init = true): Promise<WebSocket[]> {
  const sockets: WebSocket[] = [];
  const open = async () => {
    while (sockets.length < count) {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/graphql`, 'graphql-transport-ws');
      sockets.push(socket);
      socket.on('error', () => {});
      const payload = { Authorization: `Bearer ${token}` };
      socket.once('open', () => init && socket.send(JSON.stringify({ type: 'connection_init', payload })));
      await new Promise((done) => socket.once(init ? 'message' : 'open', done));
    }
  };
  await Promise.all(Array.from({ length: 20 }, open));
  return sockets;
}

/** A query whose body comes in two parts, with time between them; `finish` resolves with the status. */
function beginPost(port: number, token: string): { finish(): Promise<number> } {
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${token}` };
  const sent = request({ port, host: '127.0.0.1', method: 'POST', path: '/graphql', headers });
  const status = new Promise<number>((done, fail) => {
    sent.once('response', (response) => {
      response.resume();
      done(response.statusCode ?? 0);
    });
    sent.once('error', fail);
  });
  status.catch(() => {});
  sent.write('{"query":');
  return {
    finish() {
      sent.end('"{ viewer { token { id } } }"}');
      return status;
    },
  };
}
