// A token that is revoked, or over, opens nothing more, and what it had opened ends: sockets, event streams, a runner's
// wait, on every gateway.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { skipUnless } from '../support/absent.ts';
import {
  adminToken,
  bearer,
  createProject,
  createToken,
  dataOf,
  type Door,
  jsonType,
  openDoor,
  openSocket,
  post,
  send,
  type Socket,
  submitJob,
} from '../support/door.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { type RedisServer, startRedis } from '../support/redis.ts';

const project = 'p-tokens';
const revokeMutation = `mutation ($id: ID!) {
  revokeToken(input: { id: $id }) { ... on DeletePayload { deletedId } ... on UserError { code message hint } }
}`;

after(async () => {
  await expectNoLeaks();
});

async function idOf(port: number, token: string): Promise<string> {
  const { data } = (await post(port, { query: '{ viewer { token { id } } }', token })).json();
  return (data as unknown as { viewer: { token: { id: string } } }).viewer.token.id;
}

async function revoke(port: number, id: string, token = adminToken) {
  const answer = (await post(port, { query: revokeMutation, variables: { id }, token })).json();
  return (answer.data?.['revokeToken'] ?? answer.errors) as unknown as { deletedId?: string; code?: string };
}

/** A socket that follows the job, after its first batch. */
async function follow(port: number, token: string, jobId: string): Promise<Socket> {
  const socket = await openSocket(port, { token });
  const query = `subscription { jobLogs(jobId: "${jobId}") { endCursor } }`;
  socket.send({ id: '1', type: 'subscribe', payload: { query } });
  assert.equal((await socket.next()).type, 'next');
  return socket;
}

/** How the socket ended, and after how many milliseconds. */
async function endOf(socket: Socket, since = Date.now()) {
  const { code, reason } = await socket.closed;
  return { code, reason, ms: Date.now() - since };
}

/** An event stream; `ended` resolves with what broke it, or with null when it was completed. */
async function openStream(port: number, token: string, jobId: string) {
  const response = await fetch(`http://127.0.0.1:${port}/graphql`, {
    method: 'POST',
    headers: { ...jsonType, ...bearer(token), accept: 'text/event-stream' },
    body: JSON.stringify({ query: `subscription { jobLogs(jobId: "${jobId}") { endCursor } }` }),
  });
  const reader = response.body!.getReader();
  await reader.read();
  const drain = async () => {
    while (!(await reader.read()).done);
    return null;
  };
  return { status: response.status, ended: drain().catch((error: unknown) => error) };
}

suite('a gateway', () => {
  let door: Door;
  let port: number;
  let jobId: string;
  before(async () => {
    door = await openDoor();
    port = door.port;
    await createProject(port, project);
    jobId = await submitJob(port, project);
  });
  after(() => door.close());

  test('ends the sockets and event streams of a revoked token within a second, and opens no others', async () => {
    const token = await createToken(port, { projectId: project, scopes: ['READ'] });
    const other = await createToken(port, { projectId: project, scopes: ['READ'] });
    const [socket, bystander, stream] = await Promise.all([
      follow(port, token, jobId),
      follow(port, other, jobId),
      openStream(port, token, jobId),
    ]);
    const id = await idOf(port, token);
    const since = Date.now();
    assert.deepEqual(await revoke(port, id), { deletedId: id });
    const { code, reason, ms } = await endOf(socket, since);
    assert.deepEqual([code, reason], [4403, 'Token revoked']);
    assert.ok((await stream.ended) instanceof Error, 'cut: a stream that is completed has told everything');
    assert.ok(ms < 1_000 && Date.now() - since < 1_000, `it took ${ms} ms`);

    const refused = await post(port, { query: '{ viewer { token { id } } }', token });
    assert.equal(refused.status, 401);
    assert.match(refused.text, /was revoked/);
    await assert.rejects(openSocket(port, { token }), /4401/);
    bystander.send({ type: 'ping' });
    assert.equal((await bystander.next()).type, 'pong');
    await bystander.close();
  });

  test('leaves one event of a revocation, however often it is asked, and shows the token no more', async () => {
    const token = await createToken(port, { projectId: project, scopes: ['READ'] });
    const id = await idOf(port, token);
    assert.deepEqual(await revoke(port, id), { deletedId: id });
    assert.deepEqual(await revoke(port, id), { deletedId: id });
    const events = await door.gateway.store.database.db.execute<{ data: { tokenId: string }; actor_id: string }>(
      "select data, actor_id from event where type = 'TOKEN_REVOKED'",
    );
    const own = events.filter(({ data }) => data.tokenId === id);
    assert.deepEqual(
      own.map((event) => event.actor_id),
      [await idOf(port, adminToken)],
    );
    const query = `{ node(id: "${id}") { id } project(id: "${project}") { tokens { id } } }`;
    const { node, project: shown } = (await dataOf(port, { query })) as unknown as {
      node: null;
      project: { tokens: { id: string }[] };
    };
    assert.equal(node, null);
    assert.ok(!shown.tokens.some((listed) => listed.id === id));
  });

  test('keeps who may administer it: the last such token cannot be revoked, another one can', async () => {
    const admin = await idOf(port, adminToken);
    assert.equal((await revoke(port, admin)).code, 'INVALID_STATE');
    const second = await createToken(port, { projectId: null, scopes: ['ADMIN'] });
    const id = await idOf(port, second);
    assert.deepEqual(await revoke(port, id, second), { deletedId: id });
  });

  test('tells a token of others apart from none only to who may see it', async () => {
    const admin = await idOf(port, adminToken);
    const mine = await createToken(port, { projectId: project, scopes: ['ADMIN'] });
    const reader = await createToken(port, { projectId: project, scopes: ['READ'] });
    assert.equal((await revoke(port, admin, mine)).code, 'NOT_FOUND');
    assert.equal((await revoke(port, 'tok_none', mine)).code, 'NOT_FOUND');
    assert.equal((await revoke(port, 'tok_\0', mine)).code, 'NOT_FOUND');
    assert.equal((await revoke(port, await idOf(port, mine), reader)).code, 'PERMISSION_DENIED');
  });

  test('ends the sockets and event streams of a token that is over', async () => {
    const expiresAt = new Date(Date.now() + 1_500);
    const token = await createToken(port, {
      projectId: project,
      scopes: ['READ'],
      expiresAt: expiresAt.toISOString(),
    });
    const [socket, stream] = await Promise.all([follow(port, token, jobId), openStream(port, token, jobId)]);
    const { code, reason } = await endOf(socket);
    assert.deepEqual([code, reason], [4403, 'Token expired']);
    assert.ok((await stream.ended) instanceof Error);
    const late = Date.now() - expiresAt.getTime();
    assert.ok(late >= 0 && late < 1_000, `${late} ms after the end`);
  });

  test("ends a runner's wait for a job, and hears no more of it", async () => {
    const token = await createToken(port, { projectId: null, scopes: ['RUNNER'] });
    const ask = (path: string, body: object) =>
      send(port, { path, headers: { ...jsonType, ...bearer(token) }, body: JSON.stringify(body) });
    const machine = { name: 'm', version: '1', labels: [], gpus: [], bootId: 'b' };
    const { runnerId } = JSON.parse((await ask('/runner/v1/register', machine)).text) as { runnerId: string };
    const id = await idOf(port, token).catch(() => '');
    const claim = { runnerId, requestId: 'r1', freeGpus: [], waitSeconds: 20 };
    const waiting = ask('/runner/v1/claim', claim);
    await new Promise((resolve) => setTimeout(resolve, 200)); // the claim is under way
    const since = Date.now();
    assert.deepEqual(await revoke(port, id), { deletedId: id });
    assert.deepEqual(JSON.parse((await waiting).text), { assignment: null });
    assert.ok(Date.now() - since < 1_000);
    assert.equal((await ask('/runner/v1/claim', claim)).status, 401);
  });
});

suite('two gateways', skipUnless('postgres', 'own redis'), () => {
  let postgres: PostgresServer;
  let redis: RedisServer;
  let doors: Door[];
  let jobId: string;
  before(async () => {
    [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
    const { url } = await createDatabase(postgres);
    const env = { DATABASE_URL: url, REDIS_URL: redis.url, LOG_LEVEL: 'silent' };
    doors = [await openDoor(env), await openDoor(env)];
    await createProject(doors[0]!.port, project);
    jobId = await submitJob(doors[0]!.port, project);
  });
  after(async () => {
    await Promise.all(doors.map((door) => door.close()));
    await Promise.all([postgres.stop(), redis.stop()]);
  });

  /** What one token has open on both gateways, a socket and an event stream each, and how to end it at the first of them. */
  async function openEverywhere(): Promise<{ revokeAll(): Promise<number> }> {
    const ports = doors.map((door) => door.port);
    const token = await createToken(ports[0]!, { projectId: project, scopes: ['READ'] });
    const sockets = await Promise.all(ports.map((port) => follow(port, token, jobId)));
    const streams = await Promise.all(ports.map((port) => openStream(port, token, jobId)));
    const id = await idOf(ports[0]!, token);
    return {
      /** Milliseconds until the last of them has ended. */
      async revokeAll() {
        const since = Date.now();
        assert.deepEqual(await revoke(ports[0]!, id), { deletedId: id });
        for (const { code } of await Promise.all(sockets.map((socket) => endOf(socket, since)))) {
          assert.equal(code, 4403);
        }
        for (const end of await Promise.all(streams.map(({ ended }) => ended))) assert.ok(end instanceof Error);
        return Date.now() - since;
      },
    };
  }

  test('end what a token has open on either within a second of its revocation', async () => {
    const ms = await (await openEverywhere()).revokeAll();
    assert.ok(ms < 1_000, `it took ${ms} ms`);
  });

  test('end it within five seconds while Redis is away', async () => {
    const { revokeAll } = await openEverywhere();
    await redis.kill();
    const ms = await revokeAll();
    assert.ok(ms < 5_000, `it took ${ms} ms`);
    await redis.restart();
  });
});
