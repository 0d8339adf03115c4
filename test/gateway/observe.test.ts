// What an operator sees of a gateway: figures at /metrics, with few values of labels, and a log that tells what failed and
// never what was sent.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { sql } from 'drizzle-orm';
import { registry } from '../../src/metrics-registry.ts';
import { loggable } from '../../src/gateway/watch/log.ts';
import { newTokenText } from '../../src/project/token.ts';
import { skipUnless } from '../support/absent.ts';
import { type Child, spawnNode } from '../support/child.ts';
import { bearer, jsonType, openSocket, post, send, upgradeStatus } from '../support/door.ts';
import { call } from '../support/feeder.ts';
import { freePort } from '../support/port.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { type RedisServer, startRedis } from '../support/redis.ts';
import { newSecretKeys } from '../support/secret-keys.ts';
import { openStore } from '../support/store.ts';
import { until } from '../support/until.ts';

const binary = resolve(import.meta.dirname, '../../bin/astraml.mjs');
const canary = 'Canary7Secret';

after(() => expectNoLeaks());

test('docs/observing.md explains every figure, and no other', () => {
  const text = readFileSync(resolve(import.meta.dirname, '../../docs/observing.md'), 'utf8');
  const explained = new Set([...text.matchAll(/^\| `(astraml_\w+)`/gm)].map(([, name]) => name ?? ''));
  const counted = new Set(registry.getMetricsAsArray().map(({ name }) => name));
  assert.deepEqual([...counted].filter((name) => !explained.has(name)), []); // prettier-ignore
  assert.deepEqual([...explained].filter((name) => !counted.has(name)), []); // prettier-ignore
});

suite('An error in the log', () => {
  test('of a database tells the code and the place, and no statement, parameter or value', async () => {
    const store = await openStore();
    const failing = [
      () => store.database.db.execute(sql`select ${canary}::uuid`),
      () => store.database.db.execute(sql`select '"Canary7Secret'::text::jsonb`),
      () => store.database.db.execute(sql`insert into project (id, name) values (${canary}, null)`),
      () => store.database.transaction((tx) => tx.execute(sql`insert into project values (${'p-test'})`)),
    ];
    for (const fail of failing) {
      const error = await fail().then(
        () => assert.fail('it must fail'),
        (thrown: unknown) => thrown,
      );
      const shown = loggable(new Error('while it worked', { cause: error }));
      assert.match(shown.cause?.type ?? '', /PostgresError/);
      assert.match(String(shown.cause?.['code']), /^2\w{4}$/);
      assert.match(shown.stack, /observe\.test\.ts/);
      assert.doesNotMatch(JSON.stringify(shown), /Canary7Secret|p-test|select|insert/i);
    }
    await store.close();
  });

  test('of a parser holds nothing of its text', () => {
    try {
      JSON.parse(`${canary} {`);
    } catch (error) {
      assert.doesNotMatch(JSON.stringify(loggable(error)), /Canary/);
    }
  });
});

suite('A gateway', skipUnless('own postgres', 'own redis'), () => {
  const [token, runnerToken] = [newTokenText(), newTokenText()];
  const children: Child[] = [];
  let postgres: PostgresServer;
  let redis: RedisServer;
  let databaseUrl: string;
  let jobId: string;

  async function serve(logLevel?: string): Promise<{ child: Child; url: string; port: number; metrics: string }> {
    const metricsPort = await freePort();
    const child = spawnNode([binary, 'serve'], {
      env: {
        DATABASE_URL: databaseUrl,
        REDIS_URL: redis.url,
        PORT: '0',
        ASTRAML_BOOTSTRAP_TOKEN: token,
        ASTRAML_BOOTSTRAP_RUNNER_TOKEN: runnerToken,
        ASTRAML_SECRET_KEYS: newSecretKeys('k1'),
        ASTRAML_SHUTDOWN_SECONDS: '2',
        ASTRAML_METRICS_PORT: String(metricsPort),
        LOG_LEVEL: logLevel,
      },
    });
    children.push(child);
    const [, url = ''] = await child.untilLine(/^listening on (\S+)$/, { timeoutMs: 30_000 });
    return { child, url, port: Number(new URL(url).port), metrics: `http://127.0.0.1:${metricsPort}/metrics` };
  }
  const logged = (child: Child) =>
    child
      .output()
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown> & { operation?: { name: string; fields: string[] } });

  before(async () => {
    [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
    databaseUrl = (await createDatabase(postgres)).url;
  });
  after(async () => {
    await Promise.all(children.map((child) => child.stop()));
    await Promise.all([postgres.stop(), redis.stop()]);
  });

  test('counts what passes its doors, with few values of labels', async () => {
    const { child, url, port, metrics } = await serve();
    const rest = (method: string, path: string, body?: object) =>
      send(port, {
        method,
        path,
        headers: { ...jsonType, ...bearer(token) },
        ...(body ? { body: JSON.stringify(body) } : {}),
      });
    const create = 'mutation { createProject(input: { id: "p-observe", command: ["true"] }) { __typename } }';
    assert.equal((await post(port, { query: create, token })).status, 200);
    const submitted = await rest('POST', '/v1/jobs', { project_id: 'p-observe', model: 'm', dataset: 'd' });
    assert.equal(submitted.status, 201);
    ({ id: jobId } = JSON.parse(submitted.text) as { id: string });
    assert.equal((await rest('GET', '/v1/jobs/job_none')).status, 404);
    const accept = { accept: 'application/graphql-response+json' };
    assert.equal((await post(port, { query: `{ unknown${canary} }`, token }, accept)).status, 400);
    assert.equal((await rest('GET', '/graphql?query={__typename}')).status, 200);
    const sign = { name: 'x', version: '0', labels: [], gpus: [], bootId: 'x' };
    const { runnerId } = (await call(url, runnerToken, 'register', sign)) as { runnerId: string };
    const claim = { runnerId, freeGpus: [], requestId: 'r', waitSeconds: 20 };
    const waiting = call(url, runnerToken, 'claim', claim).catch(() => {});

    const query = `subscription { jobLogs(jobId: "${jobId}") { endCursor } }`;
    const socket = await openSocket(port, { token });
    for (const id of ['1', '2']) {
      socket.send({ id, type: 'subscribe', payload: { query } });
      await socket.next();
    }
    socket.send({ id: '3', type: 'subscribe', payload: { query: '{ viewer { token { id } } }' } });
    await socket.next();
    socket.send({ id: '4', type: 'subscribe', payload: { query: '{ unknown }' } });
    await until(() => socket.received.some(({ type }) => type === 'error'));
    const leaving = new AbortController();
    const stream = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: { ...jsonType, ...bearer(token), accept: 'text/event-stream' },
      body: JSON.stringify({ query }),
      signal: leaving.signal,
    });
    await stream.body?.getReader().read();

    const read = async () => (await fetch(metrics)).text();
    await until(async () => (await read()).includes('\nastraml_claims_waiting 1\n'));
    const text = await read();
    const value = (name: string) =>
      Number(text.split('\n').find((line) => line.startsWith(`${name} `))?.split(' ').at(-1)); // prettier-ignore
    assert.equal(value('astraml_sockets'), 1);
    assert.equal(value('astraml_event_streams'), 1);
    assert.equal(value('astraml_subscriptions{field="jobLogs"}'), 3);
    assert.equal(value('astraml_request_seconds_count{door="graphql_post",outcome="2xx"}'), 1);
    assert.equal(value('astraml_request_seconds_count{door="graphql_post",outcome="4xx"}'), 1);
    assert.equal(value('astraml_request_seconds_count{door="graphql_get",outcome="2xx"}'), 1);
    assert.equal(value('astraml_request_seconds_count{door="rest",outcome="2xx"}'), 1);
    assert.equal(value('astraml_request_seconds_count{door="rest",outcome="4xx"}'), 1);
    assert.equal(value('astraml_request_seconds_count{door="runner",outcome="2xx"}'), 1);
    assert.equal(value('astraml_request_seconds_count{door="event_stream",outcome="2xx"}'), 1);
    assert.equal(value('astraml_request_seconds_count{door="graphql_socket",outcome="ok"}'), 3);
    assert.equal(value('astraml_request_seconds_count{door="graphql_socket",outcome="refused"}'), 1);
    assert.equal(value('astraml_jobs_queued'), 1);
    assert.equal(value('astraml_attempts_active'), 0);
    assert.equal(value('astraml_redis_up'), 1);
    assert.ok(value('astraml_transaction_wait_seconds_count') > 0);
    assert.ok(value('astraml_loop_steps_total{loop="schedules",outcome="done"}') > 0);
    assert.ok(value('nodejs_eventloop_lag_seconds') >= 0);
    for (const [, labels = ''] of text.matchAll(/^astraml_\w+\{(.*)\} /gm)) {
      assert.doesNotMatch(labels, /job_|tok_|run_|Canary|astraml_|p-observe/);
    }

    leaving.abort();
    await socket.close();
    const gone = ['sockets 0', 'event_streams 0', 'subscriptions{field="jobLogs"} 0'];
    await until(async () => {
      const now = await read();
      return gone.every((line) => now.includes(`\nastraml_${line}\n`));
    });
    await child.stop();
    await waiting;
    assert.deepEqual(logged(child).filter(({ level }) => Number(level) >= 40), [], 'nothing failed'); // prettier-ignore
    assert.ok(!logged(child).some(({ msg, outcome }) => msg === 'request' && outcome !== '5xx'), 'nor was slow');
  });

  test('tells at LOG_LEVEL=trace each operation by its name and fields, and nothing that was sent', async () => {
    const { child, url, port } = await serve('trace');
    const named = `query Named($id: ID!, $search: String) {
      job(id: $id) { state } found: jobs(filter: { search: $search }) { nodes { id } } }`;
    const variables = { id: `job_${canary}`, search: canary };
    const operations = [
      { query: named, variables, token },
      { query: named, variables: { ...variables, search: { wrong: canary } }, token },
      { query: `mutation Kept { setSecret(input: { projectId: "p-observe", name: "A", value: "${canary}" }) { __typename } }`, token },
      { query: `query Literal { jobs(filter: { search: "${canary}" }) { nodes { id } } }`, token },
      { query: `{ ${canary} }`, token },
      { query: `{ __typename } # ${canary}`, token: `wrong-${canary}`.padEnd(40, 'x') },
      { query: 'query { node(id: "\\u0000") { id } }', token },
    ]; // prettier-ignore
    for (const operation of operations) {
      await post(port, operation);
      const search = new URLSearchParams({
        query: operation.query,
        variables: JSON.stringify(operation.variables ?? {}),
      });
      await send(port, { method: 'GET', path: `/graphql?${search}`, headers: bearer(operation.token) });
    }
    const socket = await openSocket(port, { token });
    for (const [index, { query, variables: given }] of operations.entries()) {
      socket.send({ id: `${index}`, type: 'subscribe', payload: { query, variables: given } });
      await socket.next();
    }
    const follow = 'subscription Follow($id: ID!) { jobLogs(jobId: $id) { endCursor } }';
    socket.send({ id: 'f', type: 'subscribe', payload: { query: follow, variables: { id: jobId } } });
    await until(() => logged(child).some(({ operation }) => operation?.name === 'Follow'));
    await socket.close();
    await upgradeStatus(port, { headers: { authorization: `Bearer ${token}` } });
    const body = { project_id: 'p-observe', model: canary, dataset: 'd', env: [{ name: 'A', value: canary }] };
    const headers = { ...jsonType, ...bearer(token), 'idempotency-key': canary };
    await send(port, { path: '/v1/jobs', headers, body: JSON.stringify(body) });
    await send(port, { path: '/v1/jobs', headers, body: `{"model": ${canary}` });
    await call(url, runnerToken, 'claim', { freeGpus: canary }).catch(() => {});
    await sleep(100);

    const lines = logged(child);
    const byName = (name: string) => lines.filter(({ operation }) => operation?.name === name);
    assert.deepEqual(byName('Named').map(({ door }) => door), ['graphql_post', 'graphql_get', 'graphql_socket']); // prettier-ignore
    assert.deepEqual(byName('Named')[0]?.operation?.fields, ['job', 'jobs']);
    assert.match(String(byName('Named')[0]?.['token']), /^tok_/);
    assert.equal(byName('Kept').length, 2, 'not over GET');
    assert.ok(lines.some(({ door, path }) => door === 'rest' && path === '/v1/jobs'));
    const output = child.output();
    for (const text of [canary, token, runnerToken, 'p-observe', 'insert into']) {
      assert.ok(!output.includes(text), `${text}: ${output.split('\n').find((line) => line.includes(text))}`);
    }
    await child.stop();
  });

  test('tells by default what failed and what was slow', async () => {
    const { child, port } = await serve();
    const query = 'query Late { jobs { nodes { id } } }';
    await post(port, { query, token });
    await postgres.kill('SIGSTOP');
    const slow = post(port, { query, token });
    await sleep(1_200);
    await postgres.kill('SIGCONT');
    assert.equal((await slow).status, 200);
    await postgres.kill();
    assert.equal((await post(port, { query, token })).status, 503);
    await postgres.restart();
    const requests = () => logged(child).filter(({ msg }) => msg === 'request');
    await until(() => requests().length >= 2);
    const [first, second] = requests();
    assert.deepEqual([first?.['level'], first?.['outcome'], first?.operation?.name], [30, '2xx', 'Late']);
    assert.ok(Number(first?.['ms']) > 1_000);
    assert.deepEqual([second?.['level'], second?.['status']], [40, 503]);
    await child.stop();
  });
});
