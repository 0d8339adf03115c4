// Our own client follows a stream across every way in which a gateway lets go of a socket, without a gap or a repeat, and
// is told when its token is over for good. A relay stands before the gateway and closes as a gateway does.
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { after, before, suite, test } from 'node:test';
import { WebSocket, WebSocketServer } from 'ws';
import { ApiError, createClient } from '../../src/client/client.ts';
import { changeJob } from '../../src/job/job.ts';
import { commit } from '../../src/live/commit.ts';
import { appendLog } from '../../src/log/append.ts';
import { adminToken, createProject, createToken, type Door, openDoor, post, submitJob } from '../support/door.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { until } from '../support/until.ts';
import assert from 'node:assert/strict';

const query = `subscription ($jobId: ID!, $after: String) {
  jobLogs(jobId: $jobId, after: $after) { lines { seq } endCursor done }
}`;
type Batch = { lines: { seq: number }[]; done: boolean };

suite('client.follow', () => {
  let door: Door;
  let relay: WebSocketServer;
  let url: string;
  const connected: WebSocket[] = [];
  before(async () => {
    door = await openDoor({ LOG_LEVEL: 'silent' });
    await createProject(door.port, 'p-follow');
    relay = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => 'graphql-transport-ws' });
    await once(relay, 'listening');
    url = `http://127.0.0.1:${(relay.address() as AddressInfo).port}`;
    relay.on('connection', (near) => {
      connected.push(near);
      const far = new WebSocket(`ws://127.0.0.1:${door.port}/graphql`, 'graphql-transport-ws');
      const early: string[] = [];
      near.on('message', (data: Buffer) =>
        far.readyState === far.OPEN ? far.send(String(data)) : early.push(String(data)),
      );
      far.on('open', () => early.forEach((text) => far.send(text)));
      far.on('message', (data: Buffer) => near.readyState === near.OPEN && near.send(String(data)));
      far.on('error', () => {});
      near.once('close', () => far.terminate());
      far.once('close', (code, reason) => near.close(code === 1006 ? 1012 : code, reason));
    });
  });
  after(async () => {
    for (const socket of relay.clients) socket.terminate();
    relay.close();
    await door.close();
    await expectNoLeaks();
  });

  test('goes on behind its cursor after 1012, 1013 and 4403, and after a cut', async () => {
    const jobId = await submitJob(door.port, 'p-follow');
    const append = (text: string) =>
      commit(door.gateway.store, (tx) =>
        changeJob(tx, jobId, (locked) => appendLog(tx, locked, 1, [{ time: Date.now(), stream: 'STDOUT', text }])),
      );
    const seqs: number[] = [];
    const events: string[] = [];
    let done = false;
    const following = (async () => {
      const onConnection = (state: string) => void events.push(state);
      const stream = createClient({ url, token: adminToken }).follow<Batch>(query, { jobId }, { onConnection });
      for await (const batch of stream) {
        seqs.push(...batch.lines.map(({ seq }) => seq));
        done = batch.done;
      }
    })();
    const ways: [string, (socket: WebSocket) => void][] = [
      ['1012', (socket) => socket.close(1012, 'Service restart')],
      ['1013', (socket) => socket.close(1013, 'Too many sockets of this token')],
      ['4403', (socket) => socket.close(4403, 'Token expired')],
      ['cut', (socket) => socket.terminate()],
    ];
    let lines = 0;
    for (const [name, end] of ways) {
      await append(name);
      lines++;
      await until(() => seqs.length === lines, { timeoutMs: 10_000, what: `the line before ${name}` });
      const before = connected.length;
      end(connected.at(-1)!);
      await append(`while it was away after ${name}`);
      lines++;
      await until(() => connected.length > before, { timeoutMs: 10_000, what: `a new connection after ${name}` });
    }
    await until(() => seqs.length === lines, { timeoutMs: 10_000 });
    const cancel = 'mutation ($id: ID!) { cancelJob(input: { id: $id }) { __typename } }';
    await post(door.port, { query: cancel, variables: { id: jobId } });
    await following;
    assert.ok(done);
    assert.deepEqual(
      seqs,
      seqs.map((_, index) => index + 1),
    );
    assert.deepEqual(
      events,
      ways.flatMap(() => ['lost', 'restored']),
    );
  });

  test('ends with UNAUTHENTICATED when the token expires: 4403, and 4401 when it comes back with the same', async () => {
    const jobId = await submitJob(door.port, 'p-follow');
    const expiresAt = new Date(Date.now() + 2_000).toISOString();
    const token = await createToken(door.port, { projectId: 'p-follow', scopes: ['READ'], expiresAt });
    const before = connected.length;
    const stream = createClient({ url, token }).follow<Batch>(query, { jobId });
    await stream.next();
    await assert.rejects(stream.next(), (error) => error instanceof ApiError && error.code === 'UNAUTHENTICATED');
    assert.equal(connected.length - before, 2, 'it came back once');
  });
});
