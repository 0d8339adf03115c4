// Followers on two gateways get every line once, in order, whatever is cut: their own sockets, the gateways' connections
// to Redis, Redis itself.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient as createStockClient } from 'graphql-ws';
import { Redis } from 'ioredis';
import { WebSocket } from 'ws';
import { liveFigures } from '../../src/metrics-registry.ts';
import { skipUnless } from '../support/absent.ts';
import { adminToken, createProject, createToken, type Door, openDoor, submitJob } from '../support/door.ts';
import { type Feeder, openFeeder } from '../support/feeder.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { type RedisServer, startRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const query = `subscription ($jobId: ID!, $after: String) {
  jobLogs(jobId: $jobId, after: $after) { lines { seq } endCursor done }
}`;

type Batch = { lines: { seq: number }[]; endCursor: string; done: boolean };
type Follower = {
  seqs: number[];
  cuts: number;
  gateways: Set<number>;
  /** The websocket of the moment. */
  socket: () => WebSocket | undefined;
  ended: Promise<void>;
};

suite('followers on two gateways', skipUnless('postgres', 'own redis'), () => {
  let postgres: PostgresServer;
  let redis: RedisServer;
  let doors: Door[];
  let runnerToken: string;
  before(async () => {
    [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
    const { url } = await createDatabase(postgres);
    const env = { DATABASE_URL: url, REDIS_URL: redis.url, LOG_LEVEL: 'silent', ASTRAML_RATE_LIMIT_POINTS: '0' };
    doors = [await openDoor(env), await openDoor(env)];
    await createProject(doors[0]!.port, 'p-faults');
    runnerToken = await createToken(doors[0]!.port, { projectId: null, scopes: ['RUNNER'] });
  });
  after(async () => {
    await Promise.all(doors.map((door) => door.close()));
    await Promise.all([postgres.stop(), redis.stop()]);
    await expectNoLeaks();
  });

  /** The stock client with the recipe of examples/clients/graphql-ws.js; each connection goes to the gateway that `pick` names. */
  function follow(jobId: string, pick: () => number): Follower {
    const follower: Follower = {
      seqs: [],
      cuts: -1,
      gateways: new Set(),
      socket: () => socket,
      ended: Promise.resolve(),
    };
    let socket: WebSocket | undefined;
    const opened = (made: WebSocket) => (socket = made);
    const client = createStockClient({
      url: () => {
        const at = pick();
        follower.gateways.add(at);
        return `ws://127.0.0.1:${doors[at]!.port}/graphql`;
      },
      webSocketImpl: class extends WebSocket {
        constructor(...args: ConstructorParameters<typeof WebSocket>) {
          super(...args);
          opened(this);
        }
      },
      connectionParams: { Authorization: `Bearer ${adminToken}` },
      retryAttempts: Infinity,
      retryWait: () => sleep(5),
      shouldRetry: () => true,
      on: { connected: () => follower.cuts++ },
    });
    let cursor: string | undefined;
    const variables = {
      jobId,
      get after() {
        return cursor;
      },
    };
    follower.ended = (async () => {
      let done = false;
      for await (const { data } of client.iterate<{ jobLogs: Batch }>({ query, variables })) {
        if (!data) continue;
        for (const { seq } of data.jobLogs.lines) follower.seqs.push(seq);
        cursor = data.jobLogs.endCursor;
        done = data.jobLogs.done;
      }
      await client.dispose();
      assert.ok(done, 'the stream said that it is over');
    })();
    return follower;
  }

  /** Feeds lines until `isOver`, then ends the job; how many lines there were. */
  async function feedUntil(feeder: Feeder, batch: number, isOver: (sent: number) => boolean): Promise<number> {
    let sent = 0;
    while (!isOver(sent)) {
      await feeder.lines(Array.from({ length: batch }, (_, n) => `${sent + n + 1}`));
      sent += batch;
    }
    await feeder.finish();
    return sent;
  }

  async function begin(): Promise<{ jobId: string; feeder: Feeder }> {
    const { url, port, gateway } = doors[0]!;
    const jobId = await submitJob(port, 'p-faults');
    return { jobId, feeder: await openFeeder(url, runnerToken, gateway.store.bus) };
  }

  const assertWhole = ({ seqs }: Follower, head: number) => {
    const gaps = seqs.filter((seq, index) => seq > (seqs[index - 1] ?? 0) + 1).length;
    const repeats = seqs.filter((seq, index) => seq <= (seqs[index - 1] ?? 0)).length;
    assert.deepEqual({ gaps, repeats, last: seqs.at(-1) }, { gaps: 0, repeats: 0, last: head });
  };

  const seconds = Number(process.env['ASTRAML_TEST_KILL_SECONDS'] ?? 30);

  test(`lose and repeat none of 50,000 lines while sockets are killed for ${seconds} s and come back at either`, async (t) => {
    const { jobId, feeder } = await begin();
    const followers = Array.from({ length: 3 }, () => follow(jobId, () => Math.floor(Math.random() * 2)));
    let killing = true;
    const killers = followers.map(async ({ socket }) => {
      while (killing) {
        await sleep(50 + Math.random() * 100);
        socket()?.terminate();
      }
    });
    const began = performance.now();
    const lines = await feedUntil(
      feeder,
      600,
      (sent) => sent >= 50_000 && performance.now() - began >= seconds * 1_000,
    );
    killing = false;
    await Promise.all([...killers, ...followers.map(({ ended }) => ended)]);
    for (const follower of followers) {
      assertWhole(follower, follower.seqs.length);
      assert.ok(follower.seqs.length >= lines);
      assert.equal(follower.gateways.size, 2);
    }
    const cuts = followers.map((follower) => follower.cuts);
    t.diagnostic(`${lines} lines, cut ${cuts.join(', ')} times, 0 gaps, 0 repeats`);
    assert.ok(Math.min(...cuts) > seconds, 'they were cut again and again');
  });

  async function followThrough(name: string, trouble: () => Promise<void>, t: { diagnostic(text: string): void }) {
    const { jobId, feeder } = await begin();
    const followers = [0, 1, 0, 1, 0, 1].map((at) => follow(jobId, () => at));
    let over = false;
    const feeding = feedUntil(feeder, 20, () => over);
    await until(() => followers.every(({ seqs }) => seqs.length > 100), { timeoutMs: 20_000 });
    await trouble();
    over = true;
    const lines = await feeding;
    await Promise.all(followers.map(({ ended }) => ended));
    const head = followers[0]!.seqs.length;
    assert.ok(head >= lines);
    for (const follower of followers) {
      assertWhole(follower, head);
      assert.equal(follower.cuts, 0, 'and no socket was closed for it');
    }
    t.diagnostic(`${name}: ${lines} lines to ${followers.length} followers`);
  }

  test('get every line while the connections that listen to Redis are killed', async (t) => {
    const control = new Redis(redis.url);
    let killed = 0;
    const kill = async () => {
      for (let n = 0; n < 10; n++) {
        killed += Number(await control.call('CLIENT', 'KILL', 'TYPE', 'pubsub'));
        await sleep(150);
      }
    };
    await followThrough('killed', kill, t);
    control.disconnect();
    assert.ok(killed >= 10, `${killed} connections were killed`);
  });

  test('get every line when Redis is restarted empty', (t) =>
    followThrough(
      'restarted',
      async () => {
        await redis.kill();
        await redis.restart();
        await sleep(500);
      },
      t,
    ));

  test('get every line when Redis is away for 10 s', (t) =>
    followThrough(
      'away',
      async () => {
        await redis.kill();
        await sleep(10_000);
        await redis.restart();
      },
      t,
    ));

  test('get lines of which no message told: a check finds them, and is counted', async () => {
    const { jobId, feeder } = await begin();
    const followers = [0, 1].map((at) => follow(jobId, () => at));
    await feeder.lines(['heard of']);
    await until(() => followers.every(({ seqs }) => seqs.length > 0), { timeoutMs: 10_000 });
    const healed = async () => (await liveFigures.healed.get()).values[0]?.value ?? 0;
    const lag = async () =>
      (await liveFigures.lag.get()).values.find(({ metricName }) => metricName?.endsWith('_count'))?.value ?? 0;
    const [healedBefore, lagBefore] = [await healed(), await lag()];
    // Messages of the job are lost, those of runners are not.
    const buses = doors.map(({ gateway }) => gateway.store.bus);
    const publishers = buses.map((bus) => bus.publish);
    for (const [index, bus] of buses.entries()) {
      bus.publish = async (channel, message) => {
        if (!channel.startsWith('astraml:job:')) await publishers[index]!.call(bus, channel, message);
      };
    }
    try {
      await feeder.lines(['unheard of']);
      await until(() => followers.every(({ seqs }) => seqs.length > 1), { timeoutMs: 15_000 });
    } finally {
      for (const [index, bus] of buses.entries()) bus.publish = publishers[index]!;
    }
    assert.ok((await healed()) > healedBefore, 'gaps_healed_total');
    assert.ok((await lag()) > lagBefore, 'read_to_feed_seconds');
    await feeder.finish();
    await Promise.all(followers.map(({ ended }) => ended));
    for (const follower of followers) assertWhole(follower, follower.seqs.length);
  });
});
