// `astraml serve`: gateways as processes of their own on one Postgres and one Redis, of which each may go away.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bus } from '../../src/bus/bus.ts';
import { redisBus } from '../../src/bus/redis.ts';
import { ApiError, type Client, createClient } from '../../src/client/client.ts';
import { newTokenText } from '../../src/project/token.ts';
import { skipUnless } from '../support/absent.ts';
import { type Child, spawnNode } from '../support/child.ts';
import { call, openFeeder } from '../support/feeder.ts';
import { freePort } from '../support/port.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { type RedisServer, startRedis } from '../support/redis.ts';
import { newSecretKeys } from '../support/secret-keys.ts';
import { createProject, followLog, jobState, submit } from '../support/stack.ts';
import { until } from '../support/until.ts';

const binary = resolve(import.meta.dirname, '../../bin/astraml.mjs');
const leaseSeconds = 4;

suite('astraml serve', () => {
  const refusals: [string, Record<string, string>, RegExp][] = [
    ['both databases are missing', {}, /needs DATABASE_URL and REDIS_URL/],
    ['the Redis is missing', { DATABASE_URL: 'postgres://x/y' }, /DATABASE_URL without REDIS_URL is not enough/],
    ['the Postgres is missing', { REDIS_URL: 'redis://x' }, /needs DATABASE_URL, the Postgres/],
    [
      'no key for secrets is there',
      { DATABASE_URL: 'postgres://x/y', REDIS_URL: 'redis://x' },
      /needs ASTRAML_SECRET_KEYS[^]+ASTRAML_SECRET_KEYS="k1:\$\(openssl rand -base64 32\)"/,
    ],
    [
      'a key is none',
      { ASTRAML_SECRET_KEYS: 'k1:s3cret,k2:s3cret' },
      /ASTRAML_SECRET_KEYS=\(hidden\): key 1 is not id:base64 of 32 bytes; .*openssl rand.+; key 2 is not/,
    ],
    ['an address is none', { DATABASE_URL: 'postgres://x/y', REDIS_URL: 'http://s3cret' }, /REDIS_URL=\(hidden\)/],
  ];
  for (const [what, env, message] of refusals) {
    test(`says so, with exit code 2, when ${what}`, async () => {
      const child = spawnNode([binary, 'serve'], {
        env: {
          DATABASE_URL: undefined,
          REDIS_URL: undefined,
          ASTRAML_SECRET_KEYS: undefined,
          ASTRAML_METRICS_PORT: '0',
          ...env,
        },
      });
      const { code } = await child.untilEnd();
      assert.equal(code, 2);
      assert.match(child.output(), message);
      assert.doesNotMatch(child.output(), /s3cret/);
    });
  }
});

suite('two gateways on one Postgres and one Redis', skipUnless('own postgres', 'own redis'), () => {
  const [token, runnerToken, secretKeys] = [newTokenText(), newTokenText(), newSecretKeys('k1')];
  const metricsPorts: number[] = [];
  const children: Child[] = [];
  const urls: string[] = [];
  const clients: Client[] = [];
  let postgres: PostgresServer;
  let redis: RedisServer;
  let databaseUrl: string;
  let bus: Bus;

  async function startOne(index: number): Promise<void> {
    const metricsPort = await freePort();
    metricsPorts[index] = metricsPort;
    const child = spawnNode([binary, 'serve'], {
      env: {
        DATABASE_URL: databaseUrl,
        REDIS_URL: redis.url,
        PORT: '0',
        ASTRAML_BOOTSTRAP_TOKEN: token,
        ASTRAML_BOOTSTRAP_RUNNER_TOKEN: runnerToken,
        ASTRAML_SECRET_KEYS: secretKeys,
        ASTRAML_RUNNER_LEASE_SECONDS: `${leaseSeconds}`,
        ASTRAML_SHUTDOWN_SECONDS: '4',
        ASTRAML_METRICS_PORT: String(metricsPort),
      },
    });
    children.push(child);
    const [, url = ''] = await child.untilLine(/^listening on (\S+)$/, { timeoutMs: 30_000 });
    urls[index] = url;
    clients[index] = createClient({ url, token, retryForMs: 15_000 });
  }
  const a = () => clients[0] ?? assert.fail();
  const b = () => clients[1] ?? assert.fail();
  const childOf = (index: number) => children[index] ?? assert.fail();
  const feed = async () => {
    const job = await submit(a(), 'p-serve', { priority: 100 });
    const feeder = await openFeeder(urls[0] ?? '', runnerToken, bus);
    assert.equal(feeder.assignment.job.id, job.id);
    return { id: job.id, feeder };
  };
  const numbered = (from: number, to: number) => Array.from({ length: to - from }, (_, n) => `line ${from + n}`);
  /** Lines 0 to 99 in batches, with something going wrong after half of them, followed on gateway B. */
  const feedThrough = async (trouble: () => Promise<void>) => {
    const { id, feeder } = await feed();
    const following = followLog(b(), id);
    for (let n = 0; n < 50; n += 5) await feeder.lines(numbered(n, n + 5));
    await Promise.all([
      (async () => {
        for (let n = 50; n < 100; n += 5) await feeder.lines(numbered(n, n + 5));
        await feeder.finish();
      })(),
      trouble(),
    ]);
    const lines = await following;
    assert.deepEqual(lines.map(({ text }) => text), numbered(0, 100)); // prettier-ignore
    assert.deepEqual(lines.map(({ seq, attempt }) => [seq, attempt]), lines.map((_, n) => [n + 1, 1])); // prettier-ignore
    assert.equal((await jobState(b(), id)).state, 'SUCCEEDED');
  };
  const ready = async (index: number) => {
    const answer = await fetch(`${urls[index]}/readyz`);
    return { status: answer.status, bus: ((await answer.json()) as { bus?: string }).bus };
  };

  before(async () => {
    [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
    databaseUrl = (await createDatabase(postgres)).url;
    await Promise.all([startOne(0), startOne(1)]); // both migrate: one waits for the other
    bus = redisBus(redis.url);
    await createProject(a(), 'p-serve', ['true']);
  });
  after(async () => {
    await bus.close();
    const ends = await Promise.all(children.map((child) => child.stop({ timeoutMs: 6_000 })));
    await Promise.all([postgres.stop(), redis.stop()]);
    const output = children.map((child) => child.output()).join('\n');
    const failed = ends.filter(({ code, signal }) => code !== 0 && signal !== 'SIGKILL');
    assert.deepEqual(failed, [], `SIGTERM ends a gateway with exit code 0: ${output}`);
    for (const child of children) {
      for (const line of child.output().split('\n')) assert.match(line, /^(listening on |\{"level":|$)/);
      assert.doesNotMatch(child.output(), /unhandled|"msg":"bug"/i);
    }
    await expectNoLeaks();
  });

  test('counts what runners sent, for Prometheus, on a port of its own', async () => {
    const read = (port: number, path = '/metrics') => fetch(`http://127.0.0.1:${port}${path}`);
    const stored = async () => {
      const texts = await Promise.all(metricsPorts.map(async (port) => (await read(port)).text()));
      return texts.reduce((sum, text) => sum + Number(/^astraml_records_total (\d+)$/m.exec(text)?.[1]), 0);
    };
    const before = await stored();
    const { feeder } = await feed(); // its first record says that the command runs
    await feeder.lines(numbered(0, 5));
    await feeder.finish();
    assert.equal(await stored(), before + 7);
    const [port = 0] = metricsPorts;
    assert.match(await (await read(port)).text(), /^process_cpu_seconds_total /m);
    assert.equal((await read(port, '/')).status, 404);
  });

  test('what one was told the other knows', async () => {
    const { id } = await submit(a(), 'p-serve');
    assert.equal((await jobState(b(), id)).state, 'QUEUED');
    for (const index of [0, 1]) assert.deepEqual(await ready(index), { status: 200, bus: 'reachable' });
    await b().request('mutation ($id: ID!) { cancelJob(input: { id: $id }) { __typename } }', { id });
  });

  test('50 submissions with one key at once are one job', async () => {
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, n) => submit(n % 2 ? a() : b(), 'p-serve', {}, 'one key')),
    );
    assert.equal(new Set(answers.map((answer) => JSON.stringify(answer))).size, 1);
    const id = answers[0]?.id;
    await a().request('mutation ($id: ID!) { cancelJob(input: { id: $id }) { __typename } }', { id });
  });

  test('who follows a job on one hears at once that the other cancelled it', async () => {
    const { id } = await submit(a(), 'p-serve');
    const states: string[] = [];
    let heardAt = 0;
    const following = (async () => {
      const query = 'subscription ($id: ID!) { jobUpdated(jobId: $id) { job { state } done } }';
      for await (const { job } of b().follow<{ job: { state: string } }>(query, { id })) {
        states.push(job.state);
        heardAt = performance.now();
      }
    })();
    await until(() => states.length === 1);
    const at = performance.now();
    await a().request('mutation ($id: ID!) { cancelJob(input: { id: $id }) { __typename } }', { id });
    await following;
    assert.deepEqual(states, ['QUEUED', 'CANCELLED']);
    assert.ok(heardAt - at < 1_000, `${heardAt - at} ms`);
  });

  test('a runner is told which Redis to use, and its lines reach who follows elsewhere', async () => {
    const sign = { name: 'x', version: '0', labels: [], gpus: [], bootId: 'x' };
    const answer = (await call(urls[1] ?? '', runnerToken, 'register', sign)) as { redisUrl: string };
    assert.equal(answer.redisUrl, redis.url);
    await feedThrough(async () => {});
  });

  test('a gateway that is killed while batches flow is replaced by the other', async () => {
    await feedThrough(async () => childOf(0).kill('SIGKILL'));
    await childOf(0).untilEnd();
    await startOne(0);
  });

  test('while Redis is away for longer than a lease no job is lost, and it may come back empty', async () => {
    await feedThrough(async () => {
      await redis.kill();
      await until(async () => (await ready(0)).bus === 'unreachable');
      assert.equal((await ready(0)).status, 200, 'degraded, but ready');
      const { id } = await submit(a(), 'p-serve');
      assert.equal((await jobState(b(), id)).state, 'QUEUED');
      await a().request('mutation ($id: ID!) { cancelJob(input: { id: $id }) { __typename } }', { id });
      await sleep((leaseSeconds + 2) * 1_000);
      await redis.restart();
    });
    await until(async () => (await ready(0)).bus === 'reachable');
  });

  test('while Postgres is away answers say that it passes, and all comes back by itself', async () => {
    await feedThrough(async () => {
      await postgres.kill();
      const impatient = createClient({ url: urls[0] ?? '', token, retryForMs: 0 });
      const refused = (error: unknown) =>
        error instanceof ApiError && error.code === 'UNAVAILABLE' && error.retryable && error.httpStatus === 503;
      await assert.rejects(impatient.request('{ jobs { nodes { id } } }'), refused);
      await assert.rejects(submit(impatient, 'p-serve'), refused);
      assert.equal((await ready(0)).status, 503);
      await sleep(1_000);
      await postgres.restart();
    });
    await until(async () => (await ready(0)).status === 200);
  });

  test('a signal ends a gateway in time while somebody follows', async () => {
    const { id } = await submit(b(), 'p-serve');
    const leaving = new AbortController();
    const query = 'subscription ($id: ID!) { jobUpdated(jobId: $id) { job { state } done } }';
    const stream = b().follow(query, { id }, { signal: leaving.signal });
    await stream.next();
    const sign = { name: 'waits', version: '0', labels: [], gpus: [], bootId: 'x' };
    const { runnerId } = (await call(urls[1] ?? '', runnerToken, 'register', sign)) as { runnerId: string };
    const claim = { runnerId, freeGpus: [], requestId: 'waits', waitSeconds: 20 };
    const waiting = call(urls[1] ?? '', runnerToken, 'claim', claim).catch(() => {});
    const began = performance.now();
    assert.deepEqual(await childOf(1).stop({ timeoutMs: 8_000 }), { code: 0, signal: null });
    assert.ok(performance.now() - began < 5_000);
    await waiting;
    const ended = stream.next().catch(() => {});
    leaving.abort();
    await ended;
  });
});
