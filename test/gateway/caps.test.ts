// Caps: what lasts is bounded for each socket, token and gateway; beyond a cap an operation is refused and may be tried
// again, and nobody else is troubled.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  adminToken,
  bearer,
  createProject,
  createToken,
  type Door,
  type GraphqlError,
  jsonType,
  type Message,
  openDoor,
  openSocket,
  post,
  send,
  type Socket,
  submitJob,
  upgradeStatus,
} from '../support/door.ts';
import { until } from '../support/until.ts';

const project = 'p-caps';
const caps = { perSocket: 5, perToken: 8, sockets: 3, all: 12 };
let door: Door;
let port: number;
let query: string;
before(async () => {
  door = await openDoor({
    ASTRAML_MAX_SUBSCRIPTIONS_PER_SOCKET: String(caps.perSocket),
    ASTRAML_MAX_SUBSCRIPTIONS_PER_TOKEN: String(caps.perToken),
    ASTRAML_MAX_SOCKETS_PER_TOKEN: String(caps.sockets),
    ASTRAML_MAX_SOCKETS: String(caps.all),
  });
  port = door.port;
  await createProject(port, project);
  query = `subscription { jobLogs(jobId: "${await submitJob(port, project)}") { endCursor done } }`;
});
after(async () => {
  await door.close();
  await expectNoLeaks();
});

const newToken = () => createToken(port, { projectId: project, scopes: ['READ'] });

/** What the operation is answered first. */
async function subscribe(socket: Socket, id: string, text = query): Promise<Message> {
  socket.send({ id, type: 'subscribe', payload: { query: text } });
  const first = await socket.next();
  const errors = errorsOf(first);
  if (first.type === 'next' && errors.length > 0) assert.equal((await socket.next()).type, 'complete');
  return first;
}

function errorsOf({ type, payload }: Message): GraphqlError[] {
  if (type === 'error') return payload as GraphqlError[];
  return (payload as { errors?: GraphqlError[] }).errors ?? [];
}

function assertCapped(message: Message, pattern: RegExp): void {
  const [error] = errorsOf(message);
  assert.equal(error?.extensions.code, 'RATE_LIMITED', JSON.stringify(message));
  assert.equal(error.extensions['retryable'], true);
  assert.equal(typeof error.extensions['retryAfterSeconds'], 'number');
  assert.match(error.message, pattern);
}

async function stream(token: string): Promise<{ status: number; code?: string; end(): void }> {
  const leaving = new AbortController();
  const answer = await fetch(`http://127.0.0.1:${port}/graphql`, {
    method: 'POST',
    headers: { ...jsonType, ...bearer(token), accept: 'text/event-stream' },
    body: JSON.stringify({ query }),
    signal: leaving.signal,
  });
  const reader = answer.body?.getReader();
  const read = await reader?.read();
  const text = Buffer.from(read?.value ?? []).toString('utf8');
  const code = /"code":"(\w+)"/.exec(text)?.[1];
  return { status: answer.status, ...(code ? { code } : {}), end: () => leaving.abort() };
}

suite('A socket', () => {
  test('may have so many subscriptions; a further one is refused, and may be tried when one has ended', async () => {
    const socket = await openSocket(port, { token: await newToken() });
    for (let n = 1; n <= caps.perSocket; n++) assert.deepEqual(errorsOf(await subscribe(socket, `${n}`)), []);
    assertCapped(await subscribe(socket, 'more'), /This socket has 5 operations open/);
    socket.send({ id: '1', type: 'complete' });
    socket.send({ type: 'ping' });
    assert.equal((await socket.next()).type, 'pong');
    await new Promise((resolve) => setTimeout(resolve, 100)); // its pace allows some more
    assert.deepEqual(errorsOf(await subscribe(socket, 'more')), []);
    await socket.close();
  });

  test('begins no more operations than its pace allows, and is left open', async () => {
    const socket = await openSocket(port, { token: await newToken() });
    const total = 60;
    for (let n = 0; n < total; n++) {
      socket.send({ id: `${n}`, type: 'subscribe', payload: { query: '{ __typename }' } });
      socket.send({ type: 'ping' });
    }
    const ends = () => socket.received.filter(({ type }) => type === 'complete' || type === 'error').length;
    await until(() => ends() === total);
    const refused = socket.received.filter(({ type }) => type === 'error');
    assert.ok(refused.length > total / 2, `${refused.length} refused`);
    for (const message of refused) assertCapped(message, /begins more than 50 operations a second|5 operations open/);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const before = socket.received.length;
    socket.send({ id: 'later', type: 'subscribe', payload: { query: '{ __typename }' } });
    await until(() => socket.received.length === before + 2);
    assert.deepEqual(socket.received[before]?.payload, { data: { __typename: 'Query' } });
    await socket.close();
  });
});

suite('A token', () => {
  test('may have so many sockets; a further one is closed with 1013, others are not concerned', async () => {
    const token = await newToken();
    const open = [];
    for (let n = 0; n < caps.sockets; n++) open.push(await openSocket(port, { token }));
    const refused = await openSocket(port, { init: false });
    refused.send({ type: 'connection_init', payload: { Authorization: `Bearer ${token}` } });
    assert.deepEqual(await refused.closed, { code: 1013, reason: 'Too many sockets of this token' });
    assert.deepEqual(refused.received, []);
    await (await openSocket(port, { token: await newToken() })).close();
    await open.pop()?.close();
    open.push(await openSocket(port, { token }));
    await Promise.all(open.map((socket) => socket.close()));
  });

  test('may have so many subscriptions, event streams among them', async () => {
    const token = await newToken();
    const streams = [await stream(token), await stream(token)];
    const sockets = [await openSocket(port, { token }), await openSocket(port, { token })];
    const [first, second] = sockets as [Socket, Socket];
    for (const id of ['1', '2', '3']) {
      for (const socket of sockets) assert.deepEqual(errorsOf(await subscribe(socket, id)), []);
    }
    assertCapped(await subscribe(first, '4'), /This token has 8 subscriptions open/);
    const capped = await stream(token);
    assert.equal(capped.code, 'RATE_LIMITED');
    capped.end();
    const other = await openSocket(port, { token: await newToken() });
    assert.deepEqual(errorsOf(await subscribe(other, '1')), []);
    await other.close();

    // Each way of leaving gives its place back.
    streams[0]?.end();
    first.send({ id: '1', type: 'complete' });
    await second.close();
    await until(async () => errorsOf(await subscribe(first, '5')).length === 0, { everyMs: 50 });
    await until(async () => errorsOf(await subscribe(first, '6')).length === 0, { everyMs: 50 });
    await first.close();
    streams[1]?.end();
  });

  test('gets its places back from subscriptions that were refused, failed or left before they began', async () => {
    const token = await newToken();
    const wrong = 'subscription { jobLogs(jobId: "job_none") { done } }';
    for (let round = 0; round < 3; round++) {
      const socket = await openSocket(port, { token });
      for (let n = 0; n < 4; n++) assert.equal(errorsOf(await subscribe(socket, `${n}`, wrong)).length, 1);
      socket.send({ id: 'left', type: 'subscribe', payload: { query } });
      await socket.close();
    }
    await new Promise((resolve) => setTimeout(resolve, 300));
    const streams = [];
    for (let n = 0; n < caps.perToken; n++) streams.push(await stream(token));
    assert.deepEqual(streams.map(({ code }) => code), Array(caps.perToken).fill(undefined)); // prettier-ignore
    for (const { end } of streams) end();
  });

  test('is missing: who has none shares the sockets of nobody', async () => {
    const open = [];
    for (let n = 0; n < caps.sockets; n++) open.push(await openSocket(port, { token: null }));
    const refused = await openSocket(port, { init: false });
    refused.send({ type: 'connection_init' });
    assert.equal((await refused.closed).code, 1013);
    await Promise.all(open.map((socket) => socket.close()));
  });
});

suite('A gateway', () => {
  test('that is full refuses sockets and event streams with 503, and answers all else', async () => {
    const open = await Promise.all(Array.from({ length: caps.all }, () => openSocket(port, { init: false })));
    assert.equal((await upgradeStatus(port)).status, 503);
    const refused = await send(port, {
      headers: { ...jsonType, ...bearer(adminToken), accept: 'text/event-stream' },
      body: JSON.stringify({ query }),
    });
    assert.equal(refused.status, 503);
    assert.match(refused.text, /"code":"OVERLOADED"/);
    assert.equal(refused.headers['retry-after'], '5');
    assert.equal((await post(port, { query: '{ __typename }' })).status, 200);
    await Promise.all(open.map((socket) => socket.close()));
    await (await openSocket(port)).close();
  });
});
