// What the gateway refuses at its doors, before anything is read or run: on HTTP, on the upgrade and on the websocket.
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, suite, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { expectNoLeaks } from '../support/leaks.ts';
import {
  adminToken,
  appOrigin,
  bearer,
  createProject,
  createToken,
  type Door,
  type HttpAnswer,
  jsonType,
  openDoor,
  openSocket,
  post,
  send,
  submitJob,
  transports,
  upgradeStatus,
} from '../support/door.ts';
import { until } from '../support/until.ts';

let door: Door;
let port: number;
let jobId: string;
let projectToken: string;
before(async () => {
  door = await openDoor();
  port = door.port;
  await createProject(port, 'p-guard');
  projectToken = await createToken(port, { projectId: 'p-guard', scopes: ['ADMIN'] });
  jobId = await submitJob(port, 'p-guard');
});
after(async () => {
  await door.close();
  await expectNoLeaks();
});

const typename = JSON.stringify({ query: '{ __typename }' });
const mutationOf = (id: string) => `mutation { createProject(input: { id: "${id}" }) { __typename } }`;

async function exists(projectId: string): Promise<boolean> {
  const answer = await post(port, { query: `{ project(id: "${projectId}") { id } }` });
  return answer.json().data?.['project'] !== null;
}

function assertRefused(answer: HttpAnswer, status: number, code: string): void {
  assert.equal(answer.status, status, answer.text);
  const { errors, data } = answer.json();
  assert.equal(errors?.[0]?.extensions.code, code);
  assert.equal(data, undefined);
}

suite('A body', () => {
  const ways: [type: string | null, body: (query: string) => string][] = [
    ['text/plain', (query) => JSON.stringify({ query })],
    ['application/x-www-form-urlencoded', (query) => `query=${encodeURIComponent(query)}`],
    [
      'multipart/form-data; boundary=x',
      (query) =>
        `--x\r\nContent-Disposition: form-data; name="operations"\r\n\r\n${JSON.stringify({ query })}\r\n` +
        `--x\r\nContent-Disposition: form-data; name="map"\r\n\r\n{}\r\n--x--\r\n`,
    ],
    ['application/graphql', (query) => query],
    ['application/graphql+json', (query) => JSON.stringify({ query })],
    ['application/jsonp', (query) => JSON.stringify({ query })],
    ['text/plain, application/json', (query) => JSON.stringify({ query })],
    ['', (query) => JSON.stringify({ query })],
    [null, (query) => JSON.stringify({ query })],
  ];
  for (const [index, [type, body]] of ways.entries()) {
    test(`of type ${type ?? '(none)'} is refused with 415, and nothing runs`, async () => {
      const headers = { ...bearer(adminToken), ...(type === null ? {} : { 'content-type': type }) };
      for (const accept of ['application/json', 'text/event-stream']) {
        const answer = await send(port, { headers: { ...headers, accept }, body: body(mutationOf(`p-type-${index}`)) });
        assertRefused(answer, 415, 'BAD_USER_INPUT');
      }
      assert.equal(await exists(`p-type-${index}`), false);
    });
  }

  test('that is compressed is refused with 415', async () => {
    for (const encoding of ['gzip', 'br', 'gzip, identity', 'GZIP']) {
      const headers = { ...jsonType, ...bearer(adminToken), 'content-encoding': encoding };
      assertRefused(await send(port, { headers, body: gzipSync(typename) }), 415, 'BAD_USER_INPUT');
    }
  });

  test('of one byte too many is refused with 413 although no length was promised', async () => {
    const headers = { ...jsonType, ...bearer(adminToken) };
    const chunks = [typename, ...Array.from({ length: 1024 }, () => Buffer.alloc(1024, ' '))];
    const atLimit = [...chunks.slice(0, -1), Buffer.alloc(1024 - typename.length, ' ')];
    assert.equal((await send(port, { headers, body: atLimit })).status, 200);
    assertRefused(await send(port, { headers, body: [...atLimit, ' '] }), 413, 'BAD_USER_INPUT');
    assertRefused(await send(port, { headers, body: Buffer.alloc(2 ** 20 + 1, ' ') }), 413, 'BAD_USER_INPUT');
  });

  test('that is not JSON is refused with 400, without the words of a parser', async () => {
    const bodies = [
      '',
      '{"query":"{ __typename }"',
      '{query: "hunter2"}',
      '\ufeff{}',
      'hunter2',
      "{'a':1}",
      '{"a":1}x',
    ];
    for (const body of bodies) {
      const answer = await send(port, { headers: { ...jsonType, ...bearer(adminToken) }, body });
      assertRefused(answer, 400, 'BAD_USER_INPUT');
      assert.doesNotMatch(answer.text, /hunter2|position|Unexpected|token/);
    }
    for (const name of ['variables', 'extensions']) {
      const path = `/graphql?query={__typename}&${name}={hunter2`;
      const answer = await send(port, { method: 'GET', path, headers: bearer(adminToken) });
      assertRefused(answer, 400, 'BAD_USER_INPUT');
      assert.doesNotMatch(answer.text, /hunter2|position|Unexpected|token/);
    }
  });

  test('that is no operation is refused with 400, a batch too', async () => {
    const bodies = ['null', '5', '"x"', '[]', `[${typename}]`, '{}', '{"query":null}', '{"query":5}'];
    const odd = ['"variables":[1]', '"variables":"x"', '"extensions":5', '"operationName":5', '"operationName":"B"'];
    for (const body of [...bodies, ...odd.map((member) => `{"query":"query A { __typename }",${member}}`)]) {
      assertRefused(await send(port, { headers: { ...jsonType, ...bearer(adminToken) }, body }), 400, 'BAD_USER_INPUT');
    }
  });

  test('may hold members that mean nothing, and __proto__ is one of them', async () => {
    const headers = { ...jsonType, ...bearer(adminToken) };
    for (const extra of [
      '"x":1',
      '"status":403',
      '"constructor":{"prototype":{"polluted":1}}',
      '"__proto__":{"query":"x"}',
    ]) {
      const answer = await send(port, { headers, body: `{"query":"{ __typename }",${extra}}` });
      assert.deepEqual(answer.json(), { data: { __typename: 'Query' } }, extra);
    }
    const query = 'query ($f: JobFilter) { jobs(filter: $f) { nodes { id } } }';
    const variables = '{"f":{"__proto__":{"model":"other","polluted":1}}}';
    const body = JSON.stringify({ query }).replace('}', `}`).slice(0, -1) + `,"variables":${variables}}`;
    const found = { data: { jobs: { nodes: [{ id: jobId }] } } };
    assert.deepEqual((await send(port, { headers, body })).json(), found);
    const search = new URLSearchParams({ query, variables });
    assert.deepEqual((await send(port, { method: 'GET', path: `/graphql?${search}`, headers })).json(), found);
    const socket = await openSocket(port);
    socket.sendRaw(`{"id":"1","type":"subscribe","payload":${body}}`);
    assert.deepEqual((await socket.next()).payload, found);
    await socket.close();
    assert.equal('polluted' in {}, false);
  });

  test('that is cut off is nobody else’s trouble', async () => {
    for (const request of ['POST /graphql', 'POST /runner/v1/claim', 'GET /graphql?query={__typename}']) {
      await reset(
        `${request} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{`,
      );
    }
    assert.equal((await post(port, { query: '{ __typename }' })).status, 200);
  });
});

/** Sends a text and resets the connection. */
async function reset(text: string, afterMs = 0): Promise<void> {
  await new Promise<void>((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.write(text);
      setTimeout(() => socket.resetAndDestroy(), afterMs);
    });
    socket.on('error', () => {});
    socket.once('close', () => resolve());
  });
}

suite('A method', () => {
  test('GET runs no mutation', async () => {
    const path = `/graphql?${new URLSearchParams({ query: mutationOf('p-get') })}`;
    for (const accept of ['application/json', 'application/graphql-response+json', 'text/event-stream', '*/*']) {
      const answer = await send(port, { method: 'GET', path, headers: { accept, ...bearer(adminToken) } });
      assert.equal(answer.status, 405, accept);
    }
    assert.equal(await exists('p-get'), false);
  });

  test('other than GET, POST and OPTIONS is refused with 405', async () => {
    for (const method of ['PUT', 'DELETE', 'PATCH', 'HEAD', 'QUERY']) {
      const answer = await send(port, { method, headers: { ...jsonType, ...bearer(adminToken) }, body: typename });
      assert.equal(answer.status, 405, method);
      assert.equal(answer.headers.allow, 'GET, POST, OPTIONS');
    }
  });
});

suite('An origin', () => {
  const strangers = [
    'https://evil.example',
    'null',
    'https://app.example.evil.example',
    'https://evil-app.example',
    'https://app.example:444',
    'http://app.example',
    'https://APP.example',
    'https://app.example/',
    'https://app.example, https://evil.example',
    '',
    'http://localhost:1',
    'file://',
  ];
  test('of another site is refused with 403 and no CORS header, at every door', async () => {
    for (const origin of strangers) {
      const requests: Promise<HttpAnswer>[] = [
        post(port, { query: mutationOf('p-evil') }, { origin }),
        post(port, { query: mutationOf('p-evil') }, { origin, accept: 'text/event-stream' }),
        send(port, { method: 'GET', path: '/graphql?query={__typename}', headers: { origin, ...bearer(adminToken) } }),
        send(port, { method: 'GET', path: '/graphql', headers: { origin, accept: 'text/html' } }),
        send(port, { method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'POST' } }),
        send(port, { path: '/runner/v1/claim', headers: { origin, ...jsonType }, body: '{}' }),
      ];
      for (const answer of await Promise.all(requests)) {
        assertRefused(answer, 403, 'PERMISSION_DENIED');
        assert.deepEqual(
          Object.keys(answer.headers).filter((name) => name.startsWith('access-control-')),
          [],
        );
      }
      assert.equal((await upgradeStatus(port, { headers: { origin } })).status, 403, origin);
    }
    assert.equal(await exists('p-evil'), false);
  });

  test('that is ours or allowed is answered, with CORS headers for the allowed one only', async () => {
    const allowed = await post(port, { query: '{ __typename }' }, { origin: appOrigin });
    assert.equal(allowed.status, 200);
    assert.equal(allowed.headers['access-control-allow-origin'], appOrigin);
    assert.equal(allowed.headers['access-control-allow-credentials'], undefined);
    assert.match(String(allowed.headers.vary), /Origin/);
    const own = await post(port, { query: '{ __typename }' }, { origin: door.url });
    assert.equal(own.status, 200);
    assert.equal(own.headers['access-control-allow-origin'], undefined);
    for (const origin of [appOrigin, door.url]) {
      assert.equal((await upgradeStatus(port, { headers: { origin } })).status, 101);
    }
    const preflight = await send(port, {
      method: 'OPTIONS',
      headers: { origin: appOrigin, 'access-control-request-method': 'POST' },
    });
    assert.equal(preflight.status, 204);
    assert.match(String(preflight.headers['access-control-allow-headers']), /authorization, content-type/);
  });

  test('is judged by Sec-Fetch-Site where there is none', async () => {
    for (const [site, status] of Object.entries({
      'cross-site': 403,
      'same-site': 403,
      'same-origin': 200,
      none: 200,
    })) {
      const headers = { 'sec-fetch-site': site };
      assert.equal((await post(port, { query: '{ __typename }' }, headers)).status, status, site);
      const get = {
        method: 'GET',
        path: '/graphql?query={__typename}',
        headers: { ...headers, ...bearer(adminToken) },
      };
      assert.equal((await send(port, get)).status, status, site);
      assert.equal((await upgradeStatus(port, { headers })).status, status === 200 ? 101 : 403, site);
    }
    const allowed = await post(
      port,
      { query: '{ __typename }' },
      { origin: appOrigin, 'sec-fetch-site': 'cross-site' },
    );
    assert.equal(allowed.status, 200, 'an allowed origin is cross-site');
  });
});

suite('A host name', () => {
  test('that is not ours is refused with 421, on HTTP and on the upgrade', async () => {
    const names = [
      'evil.example',
      'localhost.evil.example',
      `evil.example:${port}`,
      'user@localhost',
      'localhost.',
      '127.0.0.2',
    ];
    for (const host of [...names, '[::2]', '2130706433']) {
      const query = { method: 'GET', path: '/graphql?query={__typename}', headers: { host } };
      assertRefused(await send(port, query), 421, 'BAD_USER_INPUT');
      assertRefused(await post(port, { query: mutationOf('p-host') }, { host }), 421, 'BAD_USER_INPUT');
      assert.equal((await send(port, { path: '/runner/v1/claim', headers: { host }, body: '{}' })).status, 421);
      assert.equal((await upgradeStatus(port, { headers: { host } })).status, 421, host);
      assert.equal((await send(port, { method: 'GET', path: '/livez', headers: { host } })).status, 200);
      assert.equal((await send(port, { method: 'GET', path: '/readyz', headers: { host } })).status, 200);
    }
    assert.equal(await exists('p-host'), false);
  });

  test('that is ours is answered in any case and on any port', async () => {
    for (const host of ['localhost', 'LOCALHOST:1', '127.0.0.1', '[::1]:65535']) {
      assert.equal((await post(port, { query: '{ __typename }' }, { host })).status, 200, host);
      assert.equal((await upgradeStatus(port, { headers: { host } })).status, 101, host);
    }
  });
});

suite('An answer', () => {
  test('is kept by no cache and taken for nothing but what it is', async () => {
    for (const answer of [
      await post(port, { query: '{ viewer { token { name } } }' }),
      await send(port, { method: 'GET', path: '/graphql?query={__typename}', headers: bearer(adminToken) }),
      await send(port, { method: 'GET', path: '/nothing', headers: {} }),
    ]) {
      assert.match(String(answer.headers['cache-control']), /no-store/);
      assert.equal(answer.headers['x-content-type-options'], 'nosniff');
    }
  });

  test('says 401 to a token that opens nothing, on POST, GET and SSE', async () => {
    const wrong = ['y'.repeat(40), adminToken.slice(1), `${projectToken.slice(0, -1)}!`, projectToken.toUpperCase()];
    for (const token of wrong) {
      for (const accept of ['application/json', 'text/event-stream']) {
        const answer = await post(port, { query: '{ __typename }', token }, { accept });
        assertRefused(answer, 401, 'UNAUTHENTICATED');
        assert.equal(answer.headers['www-authenticate'], 'Bearer');
        const get = { method: 'GET', path: '/graphql?query={__typename}', headers: { accept, ...bearer(token) } };
        assertRefused(await send(port, get), 401, 'UNAUTHENTICATED');
      }
    }
    for (const authorization of ['', 'Basic eHg6eHg=', adminToken, `Bearer`, `Bearer ${adminToken} ${adminToken}`]) {
      const answer = await post(port, { query: '{ __typename }', token: null }, { authorization });
      assertRefused(answer, 401, 'UNAUTHENTICATED');
    }
  });
});

suite('An upgrade', () => {
  test('that is refused and reset at once ends nothing', async () => {
    const request = 'GET /graphql HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
    await Promise.all(Array.from({ length: 100 }, (_, index) => reset(request, index % 3)));
    assert.equal((await post(port, { query: '{ __typename }' })).status, 200);
  });

  test('that is refused is closed by us, also when the client keeps its side open', async () => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    socket.on('error', () => {});
    socket.write('GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    socket.resume();
    await new Promise((resolve) => socket.once('end', resolve));
    const timer = setInterval(() => socket.write('x'), 20); // a write is how one learns that the other side is gone
    await until(() => socket.destroyed, { what: 'the end of the connection' });
    clearInterval(timer);
  });

  test('elsewhere than at /graphql, or to another protocol, opens nothing', async () => {
    assert.equal((await upgradeStatus(port, { path: '/' })).status, 404);
    assert.equal((await upgradeStatus(port, { path: '/runner/v1/claim' })).status, 404);
    assert.equal((await upgradeStatus(port, { headers: { 'sec-websocket-version': '7' } })).status, 400);
  });
});

suite('A websocket', () => {
  const subscribe = (id: string, query = '{ __typename }') => ({ id, type: 'subscribe', payload: { query } });
  const stream = () => `subscription { jobLogs(jobId: "${jobId}") { done } }`;

  test('without a connection_init in time is closed with 4408', async () => {
    const socket = await openSocket(port, { init: false });
    assert.equal((await socket.closed).code, 4408);
  });

  test('that subscribes before it is acknowledged is closed with 4401', async () => {
    const socket = await openSocket(port, { init: false });
    socket.send(subscribe('1'));
    assert.equal((await socket.closed).code, 4401);
    const hasty = await openSocket(port, { init: false });
    hasty.send({ type: 'connection_init', payload: { Authorization: `Bearer ${'y'.repeat(40)}` } });
    hasty.send(subscribe('1', mutationOf('p-hasty')));
    assert.equal((await hasty.closed).code, 4401);
    assert.deepEqual(hasty.received, []);
    assert.equal(await exists('p-hasty'), false);
  });

  test('with a wrong token is closed with 4401', async () => {
    const payloads = [
      { Authorization: `Bearer ${'y'.repeat(40)}` },
      { authorization: 'Basic eHg6eHg=' },
      { Authorization: 5 },
      { token: '' },
      { token: { a: 1 } },
      { TOKEN: 'short' },
    ];
    for (const payload of payloads) {
      const socket = await openSocket(port, { init: false });
      socket.send({ type: 'connection_init', payload });
      assert.equal((await socket.closed).code, 4401, JSON.stringify(payload));
    }
  });

  test('takes the token as a header or plain, in any case', async () => {
    for (const params of [{ AUTHORIZATION: `bearer ${adminToken}` }, { token: adminToken }]) {
      const socket = await openSocket(port, { params });
      socket.send(subscribe('1', '{ viewer { token { name } } }'));
      assert.deepEqual((await socket.next()).payload, { data: { viewer: { token: { name: 'bootstrap' } } } });
      await socket.close();
    }
  });

  const ends: [name: string, code: number, act: (socket: Awaited<ReturnType<typeof openSocket>>) => void][] = [
    ['a second connection_init', 4429, (socket) => socket.send({ type: 'connection_init' })],
    ['a binary frame', 4400, (socket) => socket.sendRaw(Buffer.from('{"type":"ping"}'))],
    ['what is not JSON', 4400, (socket) => socket.sendRaw('{')],
    ['what is no message', 4400, (socket) => socket.send({ type: 'subscribe' })],
    ['a message that only a server sends', 4400, (socket) => socket.send({ id: '1', type: 'next', payload: {} })],
    ['an unknown message', 4400, (socket) => socket.send({ type: 'start', id: '1' })],
    ['an empty id', 4400, (socket) => socket.send(subscribe(''))],
    ['20,000 nested lists', 4400, (socket) => socket.sendRaw(`{"type":"ping","payload":${nested(20_000)}}`)],
    ['a frame of 64 KiB and one byte', 1009, (socket) => socket.sendRaw('x'.repeat(65_537))],
  ];
  for (const [name, code, act] of ends) {
    test(`is closed with ${code} by ${name}`, async () => {
      const socket = await openSocket(port);
      act(socket);
      assert.equal((await socket.closed).code, code);
    });
  }

  test('takes a frame of exactly 64 KiB', async () => {
    const socket = await openSocket(port);
    const message = JSON.stringify({ type: 'ping', payload: { a: '' } });
    socket.sendRaw(message.replace('""', `"${'x'.repeat(65_536 - message.length)}"`));
    assert.equal((await socket.next()).type, 'pong');
    await socket.close();
  });

  test('is closed with 4409 by an id in use, however long it is', async () => {
    for (const id of ['1', 'é'.repeat(500)]) {
      const socket = await openSocket(port);
      socket.send(subscribe(id, stream()));
      assert.equal((await socket.next()).type, 'next');
      socket.send(subscribe(id, stream()));
      assert.equal((await socket.closed).code, 4409);
    }
  });

  test('runs nothing that comes after it was closed', async () => {
    const socket = await openSocket(port);
    socket.send({ type: 'connection_init' });
    socket.send(subscribe('1', mutationOf('p-late')));
    assert.equal((await socket.closed).code, 4429);
    assert.equal(await exists('p-late'), false);
  });

  test('stays open when one of its operations fails', async () => {
    const socket = await openSocket(port);
    socket.send(subscribe('live', stream()));
    assert.equal((await socket.next()).id, 'live');
    const wrong = [
      '{',
      '{ nothing }',
      '{ job(id: 5.5) { id } }',
      'query A { __typename } query B { __typename }',
      'type A { b: Int }',
      '{ jobs(first: 0) { nodes { id } } }',
      'subscription { jobLogs(jobId: "job_none") { done } }',
      'subscription { jobLogs(jobId: "a") { done } jobUpdated(jobId: "b") { done } }',
    ];
    for (const [index, query] of wrong.entries()) {
      socket.send(subscribe(`${index}`, query));
      const { id, type, payload } = await socket.next();
      assert.equal(id, `${index}`);
      const errors = (type === 'error' ? payload : (payload as { errors: unknown }).errors) as [
        { extensions: { code: string; http?: unknown } },
      ];
      assert.match(errors[0].extensions.code, /^(BAD_USER_INPUT|NOT_FOUND)$/, query);
      assert.equal(errors[0].extensions.http, undefined);
      if (type === 'next') assert.equal((await socket.next()).type, 'complete');
    }
    socket.send(subscribe('fine'));
    assert.deepEqual((await socket.next()).payload, { data: { __typename: 'Query' } });
    await socket.close();
  });

  test('keeps no follower after it is gone, or after its operation is complete', async () => {
    const socket = await openSocket(port);
    for (const id of ['1', '__proto__', 'constructor']) {
      socket.send(subscribe(id, stream()));
      assert.equal((await socket.next()).id, id);
    }
    assert.equal(door.gateway.feeds.size, 1);
    for (const id of ['1', '__proto__', 'constructor', 'never']) socket.send({ id, type: 'complete' });
    await until(() => door.gateway.feeds.size === 0, { what: 'the end of the feed' });
    socket.send(subscribe('2', stream()));
    await socket.next();
    await socket.close();
    await until(() => door.gateway.feeds.size === 0, { what: 'the end of the feed' });
  });
});

function nested(depth: number): string {
  return '['.repeat(depth) + ']'.repeat(depth);
}

suite('The header Idempotency-Key', () => {
  const spec = '{ projectId: "p-guard", model: "m", dataset: "d" }';
  const submit = `submitJob(input: { spec: ${spec} }) { ... on SubmitJobPayload { replayed job { id } } }`;
  const token = 'createToken(input: { projectId: "p-guard", name: "n", scopes: [READ] }) { __typename }';

  test('stands for one mutation: two that take a key are refused, however they are written', async () => {
    const both = [
      `mutation { a: ${submit} b: ${submit} }`,
      `mutation { ${submit} ${token} }`,
      `mutation { ...A ...B } fragment A on Mutation { ${submit} } fragment B on Mutation { ${token} }`,
      `mutation { ... on Mutation { a: ${submit} } ... { b: ${submit} } }`,
    ];
    for (const query of both) {
      for (const accept of ['application/json', 'text/event-stream']) {
        const answer = await post(port, { query }, { 'idempotency-key': 'both', accept });
        assert.match(answer.text, /Idempotency-Key can stand for one mutation/, query);
        assert.doesNotMatch(answer.text, /"data"/);
      }
    }
    const { result } = await transports.POST(port, { query: '{ jobs { totalCount } }' });
    assert.equal(result.data?.['jobs']?.['totalCount'], 1, 'nothing was submitted');
  });

  test('makes a retry of one mutation safe', async () => {
    const run = async () =>
      (await post(port, { query: `mutation { ${submit} }` }, { 'idempotency-key': 'one' })).json();
    const [first, second] = [await run(), await run()];
    assert.equal(first.data?.['submitJob']?.['replayed'], false);
    assert.equal(second.data?.['submitJob']?.['replayed'], true);
    assert.deepEqual(second.data?.['submitJob']?.['job'], first.data?.['submitJob']?.['job']);
  });
});
