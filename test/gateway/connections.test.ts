// Connections before anybody has said who they are: how many there may be, how long a head or a body may take, and that a
// token is checked before a body is read, at every door.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConfigError, readConfig } from '../../src/config.ts';
import { registry } from '../../src/metrics-registry.ts';
import { createBoundedServer } from '../../src/gateway/http/connections.ts';
import { readBody } from '../../src/gateway/http/guard.ts';
import { serveMetrics } from '../../src/gateway/watch/metrics.ts';
import { adminToken, bearer, type Door, openDoor, openSocket, post, send } from '../support/door.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { freePort } from '../support/port.ts';
import { until } from '../support/until.ts';

const maxConnections = 12;
const wrongToken = 'y'.repeat(40);
let door: Door;
let port: number;
before(async () => {
  door = await openDoor({ ASTRAML_MAX_SOCKETS: '10', ASTRAML_MAX_CONNECTIONS: String(maxConnections) });
  port = door.port;
});
after(async () => {
  await door.close();
  await expectNoLeaks();
});

type Line = Socket & { text: string; openedAt: number; gone: Promise<number> };

/** A TCP connection; `text` is what came, `gone` resolves with the milliseconds that it was open. */
async function open(to = port): Promise<Line> {
  const openedAt = performance.now();
  const socket = connect({ port: to, host: '127.0.0.1' });
  const line: Line = Object.assign(socket, {
    text: '',
    openedAt,
    gone: new Promise<number>((resolve) => socket.once('close', () => resolve(performance.now() - openedAt))),
  });
  socket.on('error', () => {});
  socket.on('data', (chunk) => (line.text += chunk.toString('latin1')));
  await once(socket, 'connect');
  return line;
}

/** Sends one character after the other until the connection is gone. */
async function trickle(line: Line, text: string, everyMs: number): Promise<void> {
  for (let at = 0; !line.destroyed; at++) {
    line.write(text[at % text.length] ?? ' ');
    await sleep(everyMs);
  }
}

function head(method: string, path: string, headers: Record<string, string | number>): string {
  const lines = Object.entries({ host: 'localhost', ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`;
}

const figure = async (name: string, labels: Record<string, string> = {}) => {
  const { values } = (await registry.getSingleMetric(name)?.get()) ?? { values: [] };
  const found = values.find((value) => Object.entries(labels).every(([key, label]) => value.labels[key] === label));
  return found?.value ?? 0;
};

suite('A connection', () => {
  test('without a complete head is cut after ten seconds, and one that was answered is not', async (t) => {
    const ping = head('GET', '/livez', {});
    const lines = await Promise.all(Array.from({ length: 4 }, () => open()));
    const [silent, half, slow, again] = lines as [Line, Line, Line, Line];
    half.write('POST /graphql HTTP/1.1\r\nHost: localhost\r\n');
    const slowly = trickle(slow, 'GET /graphql HTTP/1.1\r\nHost: localhost\r\nx-more: '.padEnd(400, 'x'), 250);
    const socket = await openSocket(port);
    const claims = open().then((line) => {
      // A request that is complete may be answered as late as it likes.
      const query = encodeURIComponent('subscription { jobsUpdated { endCursor } }');
      const headers = { ...bearer(adminToken), accept: 'text/event-stream' };
      line.write(head('GET', `/graphql?query=${query}`, headers));
      return line;
    });
    // One that is used now and then is kept beyond ten seconds.
    const used = (async () => {
      for (let count = 1; count <= 6; count++) {
        again.write(ping);
        await until(() => again.text.split('HTTP/1.1 200').length === count + 1, { what: `answer ${count}` });
        await sleep(2_000);
      }
    })();
    const cut = await Promise.all([silent, half, slow].map(({ gone }) => gone));
    t.diagnostic(`cut after ${cut.map((ms) => (ms / 1000).toFixed(1)).join(', ')} s`);
    for (const ms of cut) assert.ok(ms > 9_900 && ms < 45_000, `${ms} ms`);
    assert.match(silent.text + half.text, /^HTTP\/1\.1 408 /);
    await used;
    socket.send({ type: 'ping' });
    assert.equal((await socket.next()).type, 'pong');
    const stream = await claims;
    assert.match(stream.text, /^HTTP\/1\.1 200 /);
    assert.equal(stream.destroyed, false);
    stream.destroy();
    again.destroy();
    await Promise.all([socket.close(), slowly]);
  });

  test('whose body comes byte by byte is cut when its time is over, and is nobody’s bug', async () => {
    const failures: unknown[] = [];
    const limits = { maxConnections: 5, headMs: 500, requestMs: 1_000, lookMs: 50 };
    const server = createBoundedServer(limits, (request, response) => {
      readBody(request, response, 1_000).then(
        () => response.end(),
        (error: unknown) => failures.push(error),
      );
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const line = await open((server.address() as AddressInfo).port);
    line.write(head('POST', '/', { 'content-length': 1_000 }));
    await trickle(line, 'x', 50);
    assert.match(line.text, /^HTTP\/1\.1 408 /);
    const openMs = await line.gone;
    assert.ok(openMs >= 1_000, `${openMs} ms`);
    assert.equal(failures.length, 1);
    server.close();

    const bugs = await figure('astraml_bugs_total');
    for (const path of ['/graphql', '/v1/jobs', '/runner/v1/claim']) {
      const left = await open();
      const headers = { 'content-type': 'application/json', 'content-length': 99, ...bearer(adminToken) };
      left.write(`${head('POST', path, headers)}{`);
      await sleep(50); // it may be read or not: neither is a bug
      left.resetAndDestroy();
    }
    assert.equal((await post(port, { query: '{ __typename }' })).status, 200);
    assert.equal(await figure('astraml_bugs_total'), bugs);
  });

  test('beyond the bound is closed at once and counted, and the next is answered when one has gone', async () => {
    await until(async () => (await figure('astraml_connections')) === 0, { what: 'no connection' });
    const refused = await figure('astraml_capped_total', { cap: 'connections' });
    const lines = await Promise.all(Array.from({ length: maxConnections }, () => open()));
    await until(async () => (await figure('astraml_connections')) === maxConnections);
    const beyond = await open();
    beyond.write(head('GET', '/livez', {}));
    await beyond.gone;
    assert.equal(beyond.text, '');
    assert.ok((await figure('astraml_capped_total', { cap: 'connections' })) > refused);
    lines[0]?.destroy();
    await until(async () => (await figure('astraml_connections')) < maxConnections);
    assert.equal((await send(port, { method: 'GET', path: '/livez' })).status, 200);
    for (const line of lines) line.destroy();
  });

  test('to /metrics is bounded too', async () => {
    const at = await freePort();
    const metrics = await serveMetrics(at, { ...readConfig({}), host: '127.0.0.1' });
    try {
      const lines = await Promise.all(Array.from({ length: 64 }, () => open(at)));
      const beyond = await open(at);
      beyond.write(head('GET', '/metrics', {}));
      await beyond.gone;
      assert.equal(beyond.text, '');
      for (const line of lines) line.destroy();
      const answer = () => fetch(`http://127.0.0.1:${at}/metrics`).then((response) => response.text());
      await until(async () => /^# HELP/.test(await answer().catch(() => '')), { what: 'the figures' });
    } finally {
      await metrics.stop();
    }
  });
});

test('/metrics answers known hosts and plain addresses only, which ends DNS rebinding', async () => {
  const config = readConfig({ ASTRAML_HOSTS: 'gateway,localhost' });
  const at = await freePort();
  const metrics = await serveMetrics(at, config);
  try {
    const ask = (host: string) => send(at, { method: 'GET', path: '/metrics', headers: { host } });
    for (const host of [
      'gateway:9464',
      'GATEWAY',
      'localhost:1',
      `127.0.0.1:${at}`,
      '10.1.2.3:9464',
      '[fd00::1]:9464',
    ]) {
      assert.equal((await ask(host)).status, 200, host);
    }
    for (const host of ['evil.example', 'gateway.evil.example', '127.0.0.1.evil.example', '1.2.3']) {
      const { status, text } = await ask(host);
      assert.equal(status, 421, host);
      assert.match(text, /ASTRAML_HOSTS/);
      assert.doesNotMatch(text, /process_cpu/);
    }
  } finally {
    await metrics.stop();
  }
});

test('more connections than sockets are wanted: by default 4,000, and no fewer are taken', () => {
  assert.equal(readConfig({}).maxConnections, 24_000);
  assert.equal(readConfig({ ASTRAML_MAX_SOCKETS: '50000' }).maxConnections, 54_000);
  const both = { ASTRAML_MAX_SOCKETS: '10', ASTRAML_MAX_CONNECTIONS: '10' };
  assert.throws(
    () => readConfig(both),
    (error) =>
      error instanceof ConfigError && /MAX_CONNECTIONS="10": must be more than ASTRAML_MAX_SOCKETS/.test(error.message),
  );
});

suite('A token is checked before the body is read', () => {
  const bodyBytes = 1024 * 1024;
  const doors: [path: string, token: string | null, type: string][] = [
    ['/graphql', wrongToken, 'application/json; charset=utf-8'],
    ['/graphql?query={__typename}', wrongToken, 'application/json; charset=utf-8'],
    ['/v1/jobs', wrongToken, 'application/problem+json'],
    ['/v1/jobs', null, 'application/problem+json'],
    ['/v1/jobs/job_1/cancel', wrongToken, 'application/problem+json'],
    ['/runner/v1/register', wrongToken, 'application/json; charset=utf-8'],
    ['/runner/v1/claim', wrongToken, 'application/json; charset=utf-8'],
    ['/runner/v1/claim', null, 'application/json; charset=utf-8'],
    ['/runner/v1/attempts/att_1/renew', null, 'application/json; charset=utf-8'],
  ];

  for (const [path, token, type] of doors) {
    const headers = { 'content-type': 'application/json', ...bearer(token) };

    test(`at ${path}, ${token ? 'a wrong one' : 'none'}: 401 before a byte of the body is sent`, async () => {
      const line = await open();
      line.write(head('POST', path, { ...headers, 'content-length': bodyBytes }));
      await until(() => line.text.includes('UNAUTHENTICATED'), { what: 'an answer' });
      assert.match(line.text, /^HTTP\/1\.1 401 /);
      assert.match(line.text, /\r\nwww-authenticate: Bearer\r\n/i);
      assert.ok(line.text.includes(`\r\ncontent-type: ${type}\r\n`), line.text);
      // The connection is usable still: what was announced is thrown away.
      assert.doesNotMatch(line.text, /\r\nconnection: close\r\n/i);
      line.text = '';
      line.write('x'.repeat(bodyBytes));
      line.write(head('GET', '/livez', {}));
      await until(() => line.text.includes('alive'), { what: 'the next answer' });
      line.destroy();
    });

    test(`at ${path}, ${token ? 'a wrong one' : 'none'}: a body without an end is cut off`, async () => {
      const endless: Record<string, string | number>[] = [
        { 'transfer-encoding': 'chunked' },
        { 'content-length': 1e12 },
      ];
      for (const announced of endless) {
        const line = await open();
        line.write(head('POST', path, { ...headers, ...announced }));
        await line.gone;
        assert.match(line.text, /^HTTP\/1\.1 401 /);
        assert.match(line.text, /\r\nconnection: close\r\n/i);
      }
    });
  }

  test('whoever asks first is not told to send it', async () => {
    for (const [path, token] of doors) {
      const headers = { 'content-type': 'application/json', 'content-length': 9, expect: '100-continue' };
      const line = await open();
      line.write(head('POST', path, { ...headers, ...bearer(token) }));
      await line.gone;
      assert.match(line.text, /^HTTP\/1\.1 401 /, path);
    }
  });

  test('whoever asks first and may is told to send it', async () => {
    const body = JSON.stringify({ query: '{ __typename }' });
    const outcome = await new Promise<{ continued: boolean; status: number }>((resolve, reject) => {
      const headers = {
        ...bearer(adminToken),
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
        expect: '100-continue',
      };
      const request = httpRequest({ port, host: '127.0.0.1', method: 'POST', path: '/graphql', headers, agent: false });
      let continued = false;
      request.once('continue', () => {
        continued = true;
        request.end(body);
      });
      request.once('response', (response) => {
        response.resume();
        resolve({ continued, status: response.statusCode ?? 0 });
      });
      request.once('error', reject);
      request.flushHeaders();
    });
    assert.deepEqual(outcome, { continued: true, status: 200 });
  });

  test('a client that sends all of it reads the answer', async () => {
    for (const [path, token] of doors) {
      const answer = await fetch(`${door.url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...bearer(token) },
        body: 'x'.repeat(bodyBytes),
      });
      assert.equal(answer.status, 401, path);
      await answer.text();
    }
  });

  test('anonymous, where the door asks for none, the body is read and answered', async () => {
    const answer = await post(port, { query: '{ __typename }', token: null });
    assert.deepEqual(answer.json(), { data: { __typename: 'Query' } });
  });
});

suite('A websocket', () => {
  const init = (bytes: number) => {
    const message = JSON.stringify({ type: 'connection_init', payload: { token: adminToken, more: '' } });
    return message.replace('""', `"${'x'.repeat(bytes - message.length)}"`);
  };

  test('takes a connection_init of 16 KiB, and closes with 1009 at one byte more', async () => {
    const taken = await openSocket(port, { init: false });
    taken.sendRaw(init(16_384));
    assert.equal((await taken.next()).type, 'connection_ack');
    await taken.close();
    const refused = await openSocket(port, { init: false });
    refused.sendRaw(init(16_385));
    assert.equal((await refused.closed).code, 1009);
    assert.deepEqual(refused.received, []);
  });

  test('may say no more than that in any number of messages, until it is acknowledged', async () => {
    const socket = await openSocket(port, { init: false });
    for (let count = 0; count < 20; count++) socket.send({ type: 'ping', payload: { text: 'x'.repeat(1_000) } });
    assert.equal((await socket.closed).code, 1009);
    const signedOn = await openSocket(port);
    for (let count = 0; count < 20; count++) {
      signedOn.send({ type: 'ping', payload: { text: 'x'.repeat(1_000) } });
      assert.equal((await signedOn.next()).type, 'pong');
    }
    await signedOn.close();
  });
});
