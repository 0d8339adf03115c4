// Who is cut off and who is not: peers that take nothing, peers that are slow, peers that ask without listening, peers
// whose token is revoked while something is ready for them. Real sockets, short times.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket, WebSocketServer } from 'ws';
import { type Patience, sendPings, watchStuck } from '../../src/gateway/ws/liveness.ts';
import { registry } from '../../src/metrics-registry.ts';
import { createSocketWriter, deliver } from '../../src/gateway/ws/socket-writer.ts';
import { adminToken, type Door, openDoor } from '../support/door.ts';
import { until } from '../support/until.ts';

const patience: Patience = { stuckMs: 600, pingEveryMs: 150 };
const megabyte = 1024 * 1024;

type Pair = { near: WebSocket; raw: Duplex; far: WebSocket };

let server: Server;
const sockets = new WebSocketServer({ noServer: true });
before(async () => {
  server = createServer().listen(0, '127.0.0.1');
  server.on('upgrade', (request, raw, head) =>
    sockets.handleUpgrade(request, raw, head, (near) => sockets.emit('connection', near, request)),
  );
  await once(server, 'listening');
});
after(async () => {
  server.close();
  await expectNoLeaks();
});

/** The gateway's end of a websocket, and its client's. */
async function connectPair(options: { autoPong?: boolean } = {}): Promise<Pair> {
  const far = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`, options);
  far.on('error', () => {});
  const [[near, request]] = (await Promise.all([once(sockets, 'connection'), once(far, 'open')])) as [
    [WebSocket, { socket: Duplex }],
    unknown,
  ];
  near.on('error', () => {});
  return { near, raw: request.socket, far };
}

/** Whether the gateway has cut it within the time. */
async function isCut(near: WebSocket, withinMs: number): Promise<boolean> {
  await Promise.race([once(near, 'close'), sleep(withinMs, undefined, { ref: false })]);
  return near.readyState === near.CLOSED;
}

function fill({ near, raw }: Pair): void {
  const text = 'x'.repeat(megabyte / 4);
  for (let n = 0; n < 100 && raw.writableLength < 2 * megabyte; n++) near.send(text);
}

suite('a peer', () => {
  test('that takes nothing is cut, whatever it says, and whatever else is put in its way', async () => {
    const pair = await connectPair();
    const { near, raw, far } = pair;
    const left = watchStuck(raw, () => near.terminate(), patience);
    far.pause();
    await until(() => (fill(pair), raw.writableLength > megabyte));
    const chatter = setInterval(() => {
      far.ping();
      near.send('a small one');
    }, 50);
    assert.ok(await isCut(near, 5_000), 'it was left open');
    clearInterval(chatter);
    left();
    far.terminate();
  });

  test('that takes a little at a time is not cut', async () => {
    const pair = await connectPair();
    const { near, raw, far } = pair;
    const left = watchStuck(raw, () => near.terminate(), patience);
    far.pause();
    await until(() => (fill(pair), raw.writableLength > megabyte));
    // A loopback connection has room for megabytes: it takes so much at a time that something moves.
    for (let n = 0; n < 12; n++) {
      far.resume();
      await sleep(15);
      far.pause();
      fill(pair);
      await sleep(200);
    }
    assert.equal(near.readyState, near.OPEN);
    left();
    far.terminate();
  });

  test('for which nothing waits is not cut for silence, as long as it answers pings', async () => {
    const [well, mute] = [await connectPair(), await connectPair({ autoPong: false })];
    const stop = [well, mute].flatMap(({ near, raw }) => [
      watchStuck(raw, () => near.terminate(), patience),
      sendPings(near, raw, patience),
    ]);
    assert.ok(await isCut(mute.near, 5_000), 'no pong came, and it was left open');
    await sleep(2 * patience.stuckMs);
    assert.equal(well.near.readyState, well.near.OPEN);
    stop.forEach((end) => end());
    well.far.terminate();
  });

  test('with many streams has no more waiting for it than with one', async () => {
    const pair = await connectPair();
    const { near, raw, far } = pair;
    const writer = createSocketWriter(near, raw);
    far.pause();
    const text = JSON.stringify('x'.repeat(256 * 1024));
    let highest = 0;
    const streams = Array.from({ length: 100 }, (_, n) =>
      deliver(writer, `${n}`, { next: async () => ({ text, event: {} }), return: async () => {} }),
    );
    const ends = streams.map((stream) => stream.next());
    for (let n = 0; n < 20; n++) {
      await sleep(20);
      highest = Math.max(highest, raw.writableLength);
      far.resume(); // and when there is room, not all of them take it
      await sleep(1);
      far.pause();
    }
    near.close();
    far.resume();
    await Promise.all(ends);
    assert.ok(highest < 2 * megabyte, `${highest} bytes waited`);
    far.terminate();
  });

  test('gets messages of any length whole and in order, between those that ws itself writes', async () => {
    for (const slow of [false, true]) {
      const { near, raw, far } = await connectPair();
      const writer = createSocketWriter(near, raw);
      const heard: string[] = [];
      far.on('message', (data: Buffer, isBinary) => heard.push(isBinary ? 'binary' : data.toString()));
      if (slow) far.pause();
      const sent: string[] = [];
      for (const length of [1, 2, 124, 125, 126, 127, 2047, 2048, 2049, 65_535, 65_536, 65_537, 900_000, 3]) {
        for (const start of ['', 'é"']) {
          const rest = 'x'.repeat(Math.max(0, length - Buffer.byteLength(start)));
          writer.send(Buffer.from(start), Buffer.from(rest));
          near.ping();
          near.send(`after ${length}`);
          sent.push(`${start}${rest}`, `after ${length}`);
        }
      }
      far.resume();
      await until(() => heard.length === sent.length);
      assert.deepEqual(heard, sent);
      near.close();
      await once(far, 'close');
    }
  });

  test('whose token is revoked while a result is ready, or while it is full, gets nothing more', async () => {
    for (const full of [false, true]) {
      const pair = await connectPair();
      const { near, raw, far } = pair;
      const writer = createSocketWriter(near, raw);
      const { promise: text, resolve: setReady } = Promise.withResolvers<string>();
      let returned = 0;
      const stream = deliver(writer, '1', {
        next: async () => ({ text: await text, event: {} }),
        return: async () => void returned++,
      });
      const heard: string[] = [];
      far.on('message', (data: Buffer) => heard.push(data.toString().slice(0, 100)));
      if (full) {
        far.pause();
        await until(() => (fill(pair), raw.writableLength > megabyte));
      }
      const end = stream.next();
      await sleep(10);
      setReady('"secret"');
      near.close(4403, 'Token revoked');
      far.resume();
      const [code] = (await once(far, 'close')) as [number];
      assert.deepEqual(await end, { done: true, value: undefined });
      assert.equal(code, 4403);
      assert.ok(!heard.some((message) => message.includes('secret')));
      assert.ok(returned > 0, 'its source was ended');
    }
  });
});

suite('a gateway', () => {
  let door: Door;
  before(async () => {
    door = await openDoor({ ASTRAML_RATE_LIMIT_POINTS: '0', LOG_LEVEL: 'silent' });
  });
  after(() => door.close());

  test('stops listening to a peer that asks and asks without taking the answers', async () => {
    const { port } = door;
    const far = new WebSocket(`ws://127.0.0.1:${port}/graphql`, 'graphql-transport-ws');
    far.on('error', () => {});
    await once(far, 'open');
    far.send(JSON.stringify({ type: 'connection_init', payload: { Authorization: `Bearer ${adminToken}` } }));
    await once(far, 'message');
    far.pause();

    const buffered = async () => {
      const figures = await registry.getMetricsAsJSON();
      const figure = figures.find(({ name }) => name === 'astraml_buffered_bytes');
      return (figure?.values as { value: number }[])[0]?.value ?? 0;
    };
    // What a ping says is said back.
    const ping = JSON.stringify({ type: 'ping', payload: { text: 'x'.repeat(60_000) } });
    let [sent, highest] = [0, 0];
    for (; sent < 80 * megabyte && far.bufferedAmount < 4 * megabyte; sent += ping.length) {
      far.send(ping);
      await sleep(1);
      highest = Math.max(highest, await buffered());
    }
    await sleep(200);
    highest = Math.max(highest, await buffered());
    far.terminate();
    assert.ok(highest < 4 * megabyte, `${(highest / megabyte).toFixed(0)} MB wait in the gateway`);
    await until(async () => (await buffered()) === 0);
  });
});
