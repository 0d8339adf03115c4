// Jobs over plain HTTP: the document's JSON as it stands, every status, problems by RFC 9457, replays and conflicts.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Refusal, type RefusalCode, refusals } from '../../src/errors.ts';
import { sendProblem } from '../../src/gateway/http/problem.ts';
import { isHere, skipUnless } from '../support/absent.ts';
import {
  adminToken,
  appOrigin,
  bearer,
  createProject,
  createToken,
  dataOf,
  type Door,
  jsonType,
  openDoor,
  post,
  send,
} from '../support/door.ts';
import { documentedJson } from '../support/documents.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../support/postgres.ts';

let door: Door;
let server: PostgresServer | undefined;
let reader: string;
let stranger: string;
before(async () => {
  server = isHere('own postgres') ? await startPostgres() : undefined;
  door = await openDoor(server ? { DATABASE_URL: (await createDatabase(server)).url } : {});
  await createProject(door.port, 'p-demo');
  await createProject(door.port, 'p-other');
  reader = await createToken(door.port, { projectId: 'p-demo', scopes: ['READ'] });
  stranger = await createToken(door.port, { projectId: 'p-other', scopes: ['ADMIN'] });
});
after(async () => {
  await door.close();
  await server?.stop();
  await expectNoLeaks();
});

type Json = Record<string, unknown>;
type Answer = { status: number; headers: Headers; body: Json };

async function call(
  method: string,
  path: string,
  body?: unknown,
  { token = adminToken, headers = {} }: { token?: string | null; headers?: Record<string, string> } = {},
): Promise<Answer> {
  const response = await fetch(`${door.url}${path}`, {
    method,
    headers: { ...(body === undefined ? {} : jsonType), ...bearer(token), ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: (text ? JSON.parse(text) : {}) as Json };
}

const submit = (body: unknown, key?: string) =>
  call('POST', '/v1/jobs', body, key === undefined ? {} : { headers: { 'idempotency-key': key } });
const spec = (fields: Json = {}) => ({ project_id: 'p-demo', model: 'm', dataset: 'd', ...fields });

function assertProblem(answer: Answer, status: number, code: RefusalCode): Json {
  assert.equal(answer.status, status, JSON.stringify(answer.body));
  assert.equal(answer.headers.get('content-type'), 'application/problem+json');
  assert.equal(answer.headers.get('cache-control'), 'no-store');
  const { type, title, detail } = answer.body;
  assert.equal(answer.body['status'], status);
  assert.equal(answer.body['code'], code);
  assert.equal(answer.body['retryable'], refusals[code].retryable);
  assert.ok(String(type).endsWith(`/errors/${code}`), String(type));
  assert.ok(title && detail, 'a title and a sentence');
  return answer.body;
}

suite('POST /v1/jobs', () => {
  test('takes the request of the document as it stands, and answers with the job', async () => {
    const { status, headers, body } = await submit(documentedJson, 'documentedJson');
    assert.equal(status, 201, JSON.stringify(body));
    assert.equal(headers.get('location'), `/v1/jobs/${String(body['id'])}`);
    assert.equal(headers.get('content-type'), 'application/json');
    const { id, number, name, created_at: createdAt, spec_hash: specHash, resolved, ...rest } = body;
    assert.match(String(id), /^job_/);
    assert.ok(Number(number) >= 1 && String(name).length > 0 && !Number.isNaN(Date.parse(String(createdAt))));
    assert.match(String(specHash), /^[0-9a-f]{64}$/);
    assert.equal(rest['state'], 'QUEUED');
    assert.equal((rest['state_reason'] as Json)['code'], 'WAITING_FOR_RUNNER');
    assert.equal(rest['project_id'], 'p-demo');
    assert.equal(rest['defaults_version'], 'v2.1');
    assert.deepEqual(rest['spec'], JSON.parse(documentedJson));
    assert.deepEqual(rest['command'], ['true']);
    assert.equal((rest['submitted_by'] as Json)['name'], 'bootstrap');
    const hyperparams = rest['hyperparams'] as Json;
    assert.deepEqual([hyperparams['lr'], hyperparams['lr_scheduler']], [3e-5, 'cosine']);
    assert.deepEqual([rest['started_at'], rest['finished_at'], rest['warnings']], [null, null, []]);
    const sourceOf = (path: string) => (resolved as Json[]).find((value) => value['path'] === path)?.['source'];
    assert.deepEqual(
      ['hyperparams.lr', 'hyperparams.lr_scheduler', 'metrics.window_seconds', 'command'].map(sourceOf),
      ['REQUEST', 'DEFAULT', 'PLATFORM', 'PROJECT'],
    );
  });

  test('gives a replay 200 and the same job, and a key that meant something else 409 with the paths', async () => {
    const first = await submit(spec({ hyperparams: { lr: 0.1 } }), 'replayed');
    assert.equal(first.status, 201);
    const again = await submit(spec({ hyperparams: { lr: 0.1 } }), 'replayed');
    assert.deepEqual([again.status, again.body['id']], [200, first.body['id']]);
    assert.equal(again.headers.get('location'), first.headers.get('location'));
    const other = await submit(spec({ hyperparams: { lr: 0.2, epochs: 1 } }), 'replayed');
    const problem = assertProblem(other, 409, 'IDEMPOTENCY_CONFLICT');
    assert.deepEqual(problem['differing_paths'], ['hyperparams.epochs', 'hyperparams.lr']);
    assert.equal(problem['existing_id'], first.body['id']);
    assert.equal(problem['path'], 'Idempotency-Key');
  });

  test('shares its keys with the mutation, since it is one function', async () => {
    const first = await submit(spec(), 'shared');
    const query = `mutation { submitJob(input: { idempotencyKey: "shared"
      spec: { projectId: "p-demo", model: "m", dataset: "d" } }) { ... on SubmitJobPayload { replayed job { id } } } }`;
    const data = await dataOf(door.port, { query });
    assert.deepEqual(data['submitJob'], { replayed: true, job: { id: first.body['id'] } });
  });

  test('makes one job of fifty calls at once with one key', async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, () => submit(spec({ name: 'fifty' }), 'fifty')));
    const statuses = answers.map(({ status }) => status).toSorted();
    assert.deepEqual(statuses, [...Array.from({ length: 49 }, () => 200), 201]);
    assert.equal(new Set(answers.map(({ body }) => body['id'])).size, 1);
  });

  test('names all problems of a spec at once, in the words of the spec file: 422', async () => {
    const wrong = spec({ hyperparams: { batch_size: 0, lr: 'fast' }, resorces: { gpus: 1 }, priority: 101 });
    const { issues } = assertProblem(await submit(wrong), 422, 'INVALID_INPUT') as { issues: Json[] };
    assert.deepEqual(Object.fromEntries(issues.map(({ path, code }) => [path, code])), {
      'hyperparams.batch_size': 'OUT_OF_RANGE',
      'hyperparams.lr': 'WRONG_TYPE',
      priority: 'OUT_OF_RANGE',
      resorces: 'UNKNOWN_FIELD',
    });
    assert.match(String(issues.find(({ path }) => path === 'resorces')?.['hint']), /Did you mean "resources"/);
    const empty = assertProblem(await submit({}), 422, 'INVALID_INPUT') as { issues: Json[] };
    assert.deepEqual(empty.issues.map(({ path }) => path).toSorted(), ['dataset', 'model', 'project_id']);
    const version = assertProblem(await submit(spec({ defaults_version: 'v2.0' })), 422, 'INVALID_INPUT');
    assert.equal((version['issues'] as Json[])[0]?.['path'], 'defaults_version');
    assertProblem(await submit(spec(), ''), 422, 'INVALID_INPUT');
  });

  test('refuses what JSON can say and no job can hold: 422, never a 500', async () => {
    const deep = (levels: number) => `{"a":`.repeat(levels) + '1' + '}'.repeat(levels);
    const bodies = [
      '[]',
      '"text"',
      'null',
      documentedJson.replace('3e-5', '1e400'),
      documentedJson.replace('"epochs"', '"own": 1e999, "epochs"'),
      documentedJson.replace('"epochs": 5', `"epochs": 5, "own": ${deep(40)}`),
      documentedJson.replace('bert-base', 'bert\\u0000base'),
      documentedJson.replace('bert-base', 'bert\\ud800base'),
    ];
    for (const body of bodies) assertProblem(await submit(body), 422, 'INVALID_INPUT');
    assertProblem(await submit(documentedJson.replace('32', deep(100_000))), 400, 'BAD_USER_INPUT');
    assertProblem(await submit(documentedJson.replace('p-demo', 'p-\\u0000')), 404, 'NOT_FOUND');
  });

  test('and the mutation refuse a number that no double holds', async () => {
    const query = `mutation ($extra: JSONObject) { submitJob(input: { idempotencyKey: "huge", spec: {
      projectId: "p-demo", model: "m", dataset: "d", hyperparams: { extra: $extra } } }) { __typename } }`;
    const body = JSON.stringify({ query, variables: { extra: { x: 'HUGE' } } }).replace('"HUGE"', '1e400');
    const answer = await send(door.port, { headers: { ...jsonType, ...bearer(adminToken) }, body });
    assert.equal(answer.json().errors?.[0]?.extensions.code, 'BAD_USER_INPUT', answer.text);
    const inline = await post(door.port, {
      query: query.replace(' ($extra: JSONObject)', '').replace('$extra', '{ x: 1e400 }'),
    });
    assert.equal(inline.json().errors?.[0]?.extensions.code, 'BAD_USER_INPUT', inline.text);
  });

  test('warns in the words of the spec file', async () => {
    const { status, body } = await submit(spec({ hyperparams: { lr_schedulr: 'cosine', lr_scheduler: 'cosin' } }));
    assert.equal(status, 201);
    assert.deepEqual(
      (body['warnings'] as Json[]).map(({ code, path }) => [code, path]),
      [
        ['UNKNOWN_HYPERPARAM', 'hyperparams.lr_schedulr'],
        ['UNKNOWN_LR_SCHEDULER', 'hyperparams.lr_scheduler'],
      ],
    );
  });

  test('gives 403 for a policy, with every violation', async () => {
    await createProject(door.port, 'p-policy');
    const query = `mutation { setPolicy(input: { projectId: "p-policy", rules: [
      { path: "hyperparams.epochs", max: 3 }, { path: "resources.gpus", max: 1, message: "One is enough." }
    ] }) { ... on PolicyPayload { policy { revision } } ... on UserError { code message } } }`;
    await dataOf(door.port, { query });
    const answer = await submit({ ...spec({ resources: { gpus: 2 } }), project_id: 'p-policy' });
    const problem = assertProblem(answer, 403, 'POLICY_VIOLATION');
    assert.deepEqual(
      (problem['violations'] as Json[]).map(({ path, kind }) => [path, kind]),
      [
        ['hyperparams.epochs', 'MAX'],
        ['resources.gpus', 'MAX'],
      ],
    );
    const allowed = { ...spec({ hyperparams: { epochs: 2 } }), project_id: 'p-policy' };
    assert.equal((await submit(allowed)).body['policy_revision'], 1);
  });

  test('tells who may not from who is unknown: 401, 403, 404', async () => {
    for (const token of [null, 'wrong'.repeat(10)]) {
      const answer = await call('POST', '/v1/jobs', documentedJson, { token });
      assertProblem(answer, 401, 'UNAUTHENTICATED');
      assert.equal(answer.headers.get('www-authenticate'), 'Bearer');
    }
    const denied = assertProblem(
      await call('POST', '/v1/jobs', documentedJson, { token: reader }),
      403,
      'PERMISSION_DENIED',
    );
    assert.deepEqual([denied['required_scope'], denied['path']], ['WRITE', 'project_id']);
    const theirs = assertProblem(await call('POST', '/v1/jobs', documentedJson, { token: stranger }), 404, 'NOT_FOUND');
    const missing = await call('POST', '/v1/jobs', spec({ project_id: 'p-miss' }), { token: stranger });
    assert.equal(JSON.stringify(missing.body).replaceAll('p-miss', 'p-demo'), JSON.stringify(theirs));
    assertProblem(await submit(spec({ project_id: 'p-missing' })), 404, 'NOT_FOUND');
  });
});

suite('A job', () => {
  test('is read by who may see it, and is missing for all others', async () => {
    const { body } = await submit(spec({ tags: ['a'] }));
    const path = `/v1/jobs/${String(body['id'])}`;
    const { warnings: _, ...job } = body;
    assert.deepEqual((await call('GET', path, undefined, { token: reader })).body, job);
    const head = await call('HEAD', path);
    assert.equal(head.status, 200);
    const gone = path.replace(/.{4}$/, '0000');
    for (const [missing, token] of [
      [path, stranger],
      [gone, adminToken],
      ['/v1/jobs/p-demo', adminToken],
      ['/v1/jobs/%00', adminToken],
    ] as const) {
      assertProblem(await call('GET', missing, undefined, { token }), 404, 'NOT_FOUND');
      assertProblem(await call('POST', `${missing}/cancel`, {}, { token }), 404, 'NOT_FOUND');
    }
    assertProblem(await call('GET', path, undefined, { token: null }), 401, 'UNAUTHENTICATED');
  });

  test('is cancelled with a reason or without a body at all, once and for all', async () => {
    const cancel = (id: unknown, body?: unknown, token?: string) =>
      call('POST', `/v1/jobs/${String(id)}/cancel`, body, token === undefined ? {} : { token });
    const { id } = (await submit(spec())).body;
    assertProblem(await cancel(id, undefined, reader), 403, 'PERMISSION_DENIED');
    const wrong = assertProblem(await cancel(id, { grace_period_seconds: 5_000 }), 422, 'INVALID_INPUT');
    assert.equal((wrong['issues'] as Json[])[0]?.['path'], 'grace_period_seconds');
    assertProblem(await cancel(id, { gracePeriodSeconds: 5 }), 422, 'INVALID_INPUT');
    assertProblem(await cancel(id, { reason: 5 }), 422, 'INVALID_INPUT');
    assertProblem(await cancel(id, '{'), 400, 'BAD_USER_INPUT');
    const cancelled = await cancel(id, { reason: 'changed my mind', grace_period_seconds: 5 });
    assert.deepEqual([cancelled.status, cancelled.body['state']], [200, 'CANCELLED']);
    assert.match(String((cancelled.body['state_reason'] as Json)['message']), /changed my mind/);
    const again = await cancel(id);
    assert.deepEqual([again.status, again.body['state']], [200, 'CANCELLED']);
  });
});

suite('The door', () => {
  test('has these paths and methods and no others: 404, 405 with Allow', async () => {
    for (const path of ['/v1', '/v1/', '/v1/job', '/v1/jobs/', '/v1/jobs/a/b', '/v1/jobs/a/cancel/b']) {
      assertProblem(await call('GET', path), 404, 'NOT_FOUND');
    }
    for (const [method, path, allow] of [
      ['GET', '/v1/jobs', 'POST, OPTIONS'],
      ['DELETE', '/v1/jobs', 'POST, OPTIONS'],
      ['POST', '/v1/jobs/job_a', 'GET, HEAD, OPTIONS'],
      ['PUT', '/v1/jobs/job_a/cancel', 'POST, OPTIONS'],
    ] as const) {
      const answer = await call(method, path);
      assertProblem(answer, 405, 'BAD_USER_INPUT');
      assert.equal(answer.headers.get('allow'), allow);
    }
  });

  test('is guarded as GraphQL is: content type, size, compression, host, origin', async () => {
    const ask = (headers: Record<string, string>, body: string | Buffer = documentedJson) =>
      send(door.port, { path: '/v1/jobs', headers: { ...bearer(adminToken), ...jsonType, ...headers }, body });
    for (const [status, headers, body] of [
      [415, { 'content-type': 'text/plain' }, documentedJson],
      [415, { 'content-type': 'application/x-www-form-urlencoded' }, documentedJson],
      [415, { 'content-encoding': 'gzip' }, documentedJson],
      [413, {}, Buffer.alloc(2 ** 20 + 1, ' ')],
      [400, {}, '{hunter2'],
      [400, {}, ''],
      [421, { host: 'evil.example' }, documentedJson],
      [403, { origin: 'https://evil.example' }, documentedJson],
      [403, { origin: 'null' }, documentedJson],
      [403, { 'sec-fetch-site': 'cross-site' }, documentedJson],
    ] as const) {
      const answer = await ask(headers, body);
      assert.equal(answer.status, status, answer.text);
      assert.equal(answer.headers['content-type'], 'application/problem+json');
      assert.equal(answer.headers['access-control-allow-origin'], undefined);
      const problem = JSON.parse(answer.text) as Json;
      assert.equal(problem['status'], status);
      assert.doesNotMatch(answer.text, /hunter2|position|Unexpected/);
    }
  });

  test('lets an allowed app of another origin in, with the headers it needs', async () => {
    const headers = { origin: appOrigin, 'access-control-request-method': 'POST' };
    const preflight = await send(door.port, { method: 'OPTIONS', path: '/v1/jobs', headers });
    assert.equal(preflight.status, 204);
    assert.match(String(preflight.headers['access-control-allow-headers']), /idempotency-key/);
    const answer = await call('POST', '/v1/jobs', documentedJson, { headers: { origin: appOrigin } });
    assert.equal(answer.status, 201);
    assert.equal(answer.headers.get('access-control-allow-origin'), appOrigin);
    assert.match(answer.headers.get('access-control-expose-headers') ?? '', /location/);
  });

  test('gives every refusal the status of its code, and when to come again', async () => {
    const codes = Object.keys(refusals) as RefusalCode[];
    const details = { retryAfterSeconds: 2.5, hint: 'wait' };
    const answering = createServer((request, response) => {
      const code = codes.find((name) => request.url === `/${name}`) ?? 'INTERNAL';
      sendProblem(response, new Refusal(code, 'A sentence.', details), {
        report: () => {},
        publicUrl: 'https://ml.example',
      });
    });
    await new Promise<void>((resolve) => answering.listen(0, '127.0.0.1', resolve));
    const { port } = answering.address() as AddressInfo;
    for (const code of codes) {
      const response = await fetch(`http://127.0.0.1:${port}/${code}`);
      const answer = { status: response.status, headers: response.headers, body: (await response.json()) as Json };
      const problem = assertProblem(answer, refusals[code].httpStatus, code);
      assert.deepEqual(
        [problem['detail'], problem['hint'], problem['retry_after_seconds']],
        ['A sentence.', 'wait', 2.5],
      );
      assert.equal(answer.headers.get('retry-after'), '3');
    }
    answering.closeAllConnections();
    await new Promise((resolve) => answering.close(resolve));
    assert.equal(refusals.RATE_LIMITED.httpStatus, 429);
    assert.equal(refusals.POLICY_VIOLATION.httpStatus, 403);
  });

  test('says 503, worth a retry, while the database is away', skipUnless('own postgres'), async () => {
    assert.ok(server);
    await server.kill();
    const answer = await submit(spec(), 'away');
    assertProblem(answer, 503, 'UNAVAILABLE');
    assert.equal(answer.headers.get('retry-after'), '1');
    await server.restart();
    for (let tries = 0; tries < 50; tries++) {
      const { status } = await submit(spec(), 'away');
      if (status === 201) return;
      assert.equal(status, 503);
      await sleep(100);
    }
    assert.fail('it did not come back');
  });
});
