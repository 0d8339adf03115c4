// What goes wrong: bugs are masked and logged once, refusals speak, a database that is away is worth a retry and is
// found again, and the log holds neither SQL nor a value that somebody sent.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { GraphQLError } from 'graphql';
import postgres from 'postgres';
import { publicError } from '../../src/graphql/error.ts';
import { Refusal } from '../../src/errors.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { skipUnless } from '../support/absent.ts';
import { type Child, spawnNode } from '../support/child.ts';
import {
  adminToken,
  createProject,
  type GraphqlError,
  openSocket,
  post,
  send,
  submitJob,
  transportNames,
  transports,
} from '../support/door.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';

after(() => expectNoLeaks());

suite('publicError', () => {
  const reports: { error: unknown; reference: string }[] = [];
  const show = (error: unknown) => publicError(error, (bug, reference) => void reports.push({ error: bug, reference }));

  test('masks a bug and reports it once, under the reference that the caller gets', () => {
    const bug = new Error('select hunter2 from secret');
    const shown = show(new GraphQLError('wrapped', { originalError: bug, path: ['a'] }));
    assert.equal(reports.length, 1);
    assert.equal(reports[0]?.error, bug);
    assert.equal(shown.message, `Something went wrong here. Reference: ${reports[0]?.reference}`);
    assert.deepEqual(shown.path, ['a']);
    assert.equal(JSON.stringify(shown).includes('hunter2'), false);
    assert.equal(show(shown).message, shown.message, 'masking twice changes nothing');
    assert.equal(reports.length, 1);
  });

  test('masks whatever is thrown', () => {
    for (const thrown of ['hunter2', null, undefined, 5, { message: 'hunter2' }, Object.create(null)]) {
      const shown = show(thrown);
      assert.equal(shown.extensions['code'], 'INTERNAL');
      assert.equal(JSON.stringify(shown).includes('hunter2'), false);
    }
  });

  test('lets a refusal speak, with its class and without a report', () => {
    const before = reports.length;
    const refusal = new Refusal('RATE_LIMITED', 'Too fast.', { retryAfterSeconds: 3, hint: 'Wait.' });
    const { message, extensions } = show(new GraphQLError('x', { originalError: refusal }));
    assert.equal(message, 'Too fast.');
    assert.deepEqual(extensions, {
      code: 'RATE_LIMITED',
      retryable: true,
      hint: 'Wait.',
      retryAfterSeconds: 3,
      http: { status: 429, headers: { 'retry-after': '3' } },
    });
    assert.equal(reports.length, before);
  });

  test('keeps codes to the closed list', () => {
    const foreign = new GraphQLError('x', { extensions: { code: 'BAD_REQUEST', http: { status: 405, spec: true } } });
    const { extensions } = show(foreign);
    assert.deepEqual({ ...extensions }, { code: 'BAD_USER_INPUT', retryable: false, http: { status: 405 } });
  });
});

suite('A gateway on a Postgres server', skipUnless('own postgres'), () => {
  let server: PostgresServer;
  let gateway: Child;
  let port: number;
  let jobId: string;
  let sql: postgres.Sql;
  before(async () => {
    server = await startPostgres();
    gateway = spawnNode([`${import.meta.dirname}/../support/fixtures/gateway.ts`], {
      env: {
        DATABASE_URL: server.url,
        PORT: '0',
        ASTRAML_BOOTSTRAP_TOKEN: adminToken,
        NODE_OPTIONS: '--unhandled-rejections=strict',
      },
    });
    const [, url = ''] = await gateway.untilLine(/^listening (\S+)/, { timeoutMs: 30_000 });
    port = Number(new URL(url).port);
    await createProject(port, 'p-error');
    jobId = await submitJob(port, 'p-error');
    sql = postgres(server.url, { max: 1, onnotice: () => {} });
  });
  after(async () => {
    const ended = await gateway.stop();
    await sql.end({ timeout: 1 });
    await server.stop();
    assert.deepEqual(ended, { code: 0, signal: null });
    // Every line is a log record; nothing was printed by anybody else, and no promise was lost.
    for (const line of gateway.output().split('\n')) assert.match(line, /^(listening |\{"level")/);
    assert.doesNotMatch(gateway.output(), /unhandled/i);
  });

  const bugLines = () =>
    gateway
      .output()
      .split('\n')
      .filter((line) => line.includes('"msg":"bug"'));

  test('what clients do wrong leaves no line in its log, and no value', async () => {
    const secret = 'hunter2SECRET';
    const sent = gateway.output().length;
    const spec = { projectId: 'p-error', model: 'm', dataset: 'd' };
    const operations = [
      { query: `{ previewJob(spec: { projectId: "p-error", model: 5, dataset: "${secret}" }) { specHash } }` },
      { query: `{ previewJob(spec: { projectId: "p-error", modell: "${secret}" }) { specHash } }` },
      {
        query: 'query ($spec: JobSpecInput!) { previewJob(spec: $spec) { specHash } }',
        variables: { spec: { ...spec, priority: secret, env: [{ name: 'A', from: { value: secret } }] } },
      },
      { query: `{ jobs(filter: { model: "${secret}\\u0000" }) { nodes { id } } }` },
      { query: `{ ${secret}` },
      { query: '{ __typename }', token: secret.repeat(3) },
    ];
    for (const operation of operations) {
      for (const transport of transportNames) {
        const outcome = await transports[transport](port, operation).catch((error: Error) => ({ text: error.message }));
        assert.equal(outcome.text.includes(secret), false, outcome.text);
      }
    }
    for (const body of [secret, `{"${secret}`, 'null', '[]']) {
      await send(port, { headers: { 'content-type': 'application/json' }, body });
    }
    for (const raw of [secret, '{"type":"next","id":"1","payload":{}}', 'x'.repeat(65_537), Buffer.from(secret)]) {
      const socket = await openSocket(port);
      socket.sendRaw(raw);
      await socket.closed;
    }
    await post(port, { query: '{ __typename }' });
    assert.equal(gateway.output().slice(sent), '');
  });

  test('a typed refusal keeps 200 and carries its class', async () => {
    const query =
      'mutation { cancelJob(input: { id: "job_none" }) { ... on UserError { code httpStatus retryable } } }';
    for (const accept of ['application/json', 'application/graphql-response+json']) {
      const answer = await post(port, { query }, { accept });
      assert.equal(answer.status, 200);
      const refusal = { code: 'NOT_FOUND', httpStatus: 404, retryable: false };
      assert.deepEqual(answer.json(), { data: { cancelJob: refusal } });
    }
  });

  test('a bug is masked over every transport, and logged once with its reference and without SQL', async () => {
    await sql`alter table job rename to job_hidden`;
    try {
      for (const transport of transportNames) {
        const known = bugLines().length;
        const query = `query { job(id: "${jobId}") { id } }`;
        const { result, status, open } = await transports[transport](port, { query });
        const [error] = result.errors as [GraphqlError];
        const reference = /^Something went wrong here\. Reference: ([0-9a-f-]{36})$/.exec(error.message)?.[1];
        assert.ok(reference, error.message);
        assert.deepEqual(error.extensions, { code: 'INTERNAL', retryable: false });
        if (transport === 'POST' || transport === 'GET') assert.equal(status, 500);
        assert.equal(open, true);
        const line = await until(() => bugLines()[known], { what: 'a line in the log' });
        assert.equal((JSON.parse(line) as { reference: string }).reference, reference);
        assert.match(line, /does not exist/);
        assert.doesNotMatch(line, /select |"params"|"query"/);
        assert.equal(line.includes(jobId), false);
        assert.equal(bugLines().length, known + 1);
      }
    } finally {
      await sql`alter table job_hidden rename to job`;
    }
  });

  test('a bug in the middle of a stream ends that stream, masked, and no other', async () => {
    const known = bugLines().length;
    const socket = await openSocket(port);
    const stream = `subscription { jobUpdated(jobId: "${jobId}") { job { id } } }`;
    socket.send({ id: 'live', type: 'subscribe', payload: { query: stream } });
    assert.equal((await socket.next()).type, 'next');
    const sse = post(port, { query: stream }, { accept: 'text/event-stream' });
    await sql`alter table job rename to job_hidden`;
    try {
      const message = await socket.next(); // the follower looks again every few seconds
      const error = JSON.stringify(message);
      assert.match(error, /Something went wrong here\. Reference: [0-9a-f-]{36}/);
      assert.match(error, /"code":"INTERNAL"/);
      assert.doesNotMatch(error, /relation|select/);
      const { text } = await sse;
      assert.match(text, /Something went wrong here/);
      assert.doesNotMatch(text, /relation|select/);
      await until(() => bugLines().length === known + 2, { what: 'two lines in the log' });
    } finally {
      await sql`alter table job_hidden rename to job`;
    }
    socket.send({ id: 'next', type: 'subscribe', payload: { query: '{ __typename }' } });
    await until(() => socket.received.some(({ id }) => id === 'next'), { what: 'an answer on the same socket' });
    await socket.close();
  });

  test('a database that is away is a 503 worth a retry, everywhere, and is found again', async () => {
    const known = bugLines().length;
    const stream = await openSocket(port);
    stream.send({
      id: 'live',
      type: 'subscribe',
      payload: { query: `subscription { jobUpdated(jobId: "${jobId}") { job { id } } }` },
    });
    await stream.next();
    await server.kill();

    const query = '{ jobs { nodes { id } } }';
    const spec = '{ projectId: "p-error", model: "m", dataset: "d" }';
    const mutation = `mutation { submitJob(input: { spec: ${spec} }) { __typename } }`;
    for (const text of [query, mutation]) {
      for (const accept of ['application/json', 'application/graphql-response+json', 'text/event-stream']) {
        const answer = await post(port, { query: text }, { accept });
        assert.match(answer.text, /"code":"UNAVAILABLE","retryable":true/, answer.text);
        assert.doesNotMatch(answer.text, /ECONN|127\.0\.0\.1|postgres/i);
        assert.equal(answer.status, 503);
      }
    }
    const anonymous = await post(port, { query: '{ serverInfo { defaultsVersion } }', token: null });
    assert.equal(anonymous.status, 503);
    const socket = await openSocket(port, { init: false });
    socket.send({ type: 'connection_init', payload: { token: adminToken } });
    assert.equal((await socket.closed).code, 1013, 'a token that cannot be checked is not a wrong one');
    assert.equal((await send(port, { method: 'GET', path: '/livez' })).status, 200);
    assert.equal((await send(port, { method: 'GET', path: '/readyz' })).status, 503);
    assert.equal((await post(port, { query: '{ __typename }', token: null })).status, 200);
    await server.restart();
    await until(async () => (await post(port, { query })).status === 200, { timeoutMs: 15_000, what: 'an answer' });
    assert.equal((await send(port, { method: 'GET', path: '/readyz' })).status, 200);
    const cancel = `mutation { cancelJob(input: { id: "${jobId}" }) { __typename } }`;
    assert.equal((await post(port, { query: cancel })).status, 200);
    assert.equal((await stream.next()).type, 'next', 'a stream that was open goes on by itself');
    await stream.close();
    assert.deepEqual(bugLines().slice(known), [], 'an absent database is no bug');
  });
});
