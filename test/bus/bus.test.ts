// The bus port: one contract over every adapter, and what only Redis can do: be cut off, lose everything, come back.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { Redis } from 'ioredis';
import { type Bus, channels } from '../../src/bus/bus.ts';
import { memoryBus } from '../../src/bus/memory.ts';
import { redisBus } from '../../src/bus/redis.ts';
import { busContract } from '../contract/bus.ts';
import { skipUnless } from '../support/absent.ts';
import { type RedisServer, startRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const { signal } = new AbortController();
const take = (from: Bus, consumer: string, max = 50) => from.take(consumer, { max, blockMs: 300, signal });

/** Takes and ends entries, whatever fails, until all of these came; they may come twice. */
const drain = async (from: Bus, consumer: string, wanted: readonly string[], timeoutMs = 10_000) => {
  const got = new Set<string>();
  const takeSome = async () => {
    const entries = await take(from, consumer);
    for (const { batch } of entries) got.add(batch.toString());
    await from.done(entries);
  };
  const isDone = async () => {
    await takeSome().catch(() => {});
    return wanted.every((batch) => got.has(batch));
  };
  await until(isDone, { timeoutMs, what: `${wanted.join(', ')} in ${[...got].join(', ')}` });
  return [...got];
};

// They wait nearly all of their time, each on a server of its own.
suite('the bus', { concurrency: true }, () => {
  after(() => expectNoLeaks());

  busContract('memory', async (idleMs) => {
    const bus = memoryBus({ idleMs });
    return { bus, close: () => bus.close() };
  });

  suite('Redis', skipUnless('redis'), () => {
    busContract('Redis', async (idleMs) => {
      const server = await startRedis();
      const bus = redisBus(server.url, { idleMs });
      return {
        bus,
        async close() {
          await bus.close();
          await server.stop();
        },
      };
    });
  });

  suite('A bus on a Redis that fails', { ...skipUnless('own redis'), concurrency: false }, () => {
    let server: RedisServer;
    let bus: Bus;
    const heard: string[] = [];
    const order = async (command: string, ...args: string[]) => {
      const redis = new Redis(server.url);
      const answer = await redis.call(command, args);
      await redis.quit();
      return answer;
    };

    before(async () => {
      server = await startRedis();
      bus = redisBus(server.url, {
        onAway: () => heard.push('away'),
        onBack: () => heard.push('back'),
        onTrouble: () => heard.push('trouble'),
      });
      await until(() => bus.ping().then(() => true, () => false)); // prettier-ignore
    });
    after(async () => {
      await bus.close();
      await server.stop();
    });

    test('an entry that was done leaves nothing behind', async () => {
      await bus.append(0, 'x');
      await drain(bus, 'one', ['x']);
      assert.equal(await order('XLEN', channels.uplink(0)), 0);
      assert.deepEqual(await order('XPENDING', channels.uplink(0), 'astraml'), [0, null, null, null]);
    });

    test('what was appended before anybody took is taken', async () => {
      await order('FLUSHALL');
      await bus.append(3, 'early');
      const late = redisBus(server.url);
      assert.deepEqual(await drain(late, 'late', ['early']), ['early']);
      await late.close();
    });

    test('a FLUSHALL while a consumer waits costs what was in it, and nothing that comes after', async () => {
      const waiting = take(bus, 'one');
      await order('FLUSHALL');
      assert.deepEqual(await waiting, []);
      for (const batch of ['f1', 'f2', 'f3']) await bus.append(1, batch);
      assert.deepEqual(await drain(bus, 'one', ['f1', 'f2', 'f3']), ['f1', 'f2', 'f3']);
      await bus.append(1, 'f4');
      const held = await take(bus, 'one');
      await order('FLUSHALL');
      await bus.done(held); // of entries that are gone: no error
      await bus.append(1, 'f5');
      assert.deepEqual(await drain(bus, 'one', ['f5']), ['f5']);
    });

    test('two consumers share the streams, each entry goes to one of them', async () => {
      const other = redisBus(server.url);
      const all = Array.from({ length: 200 }, (_, n) => `s${n}`);
      await Promise.all(all.map((batch, n) => bus.append(n % 4, batch)));
      const got: string[][] = [[], []];
      const run = async (from: Bus, mine: string[] | undefined) => {
        for (const until = Date.now() + 10_000; got.flat().length < all.length && Date.now() < until;) {
          const entries = await take(from, mine === got[0] ? 'a' : 'b', 10);
          mine?.push(...entries.map(({ batch }) => batch.toString()));
          await from.done(entries);
        }
      };
      await Promise.all([run(bus, got[0]), run(other, got[1])]);
      assert.deepEqual(got.flat().toSorted(), all.toSorted());
      assert.ok(got.every((mine) => mine.length > 10));
      await other.close();
    });

    test('a consumer that dies leaves its entries to another one', async () => {
      const dying = redisBus(server.url);
      await bus.append(2, 'orphan 1');
      await bus.append(2, 'orphan 2');
      assert.equal((await take(dying, 'dying')).length, 2);
      await dying.close();
      assert.deepEqual(await take(bus, 'heir'), [], 'it may still be alive');
      assert.deepEqual(await drain(bus, 'heir', ['orphan 1', 'orphan 2'], 15_000), ['orphan 1', 'orphan 2']);
    });

    test('a reader that is cut off hears its channels again, and is told to look for what it missed', async () => {
      const messages: string[] = [];
      let breaks = 0;
      const stop = await bus.subscribe('astraml:cut', (message) => messages.push(message));
      const stopBreaks = bus.onBreak(() => breaks++);
      await order('CLIENT', 'KILL', 'TYPE', 'pubsub');
      await until(() => breaks === 1, { what: 'a break' });
      await bus.publish('astraml:cut', 'after');
      await until(() => messages.includes('after'));
      await bus.publish('astraml:cut', 'later');
      await until(() => messages.includes('later'));
      assert.deepEqual([messages, breaks], [['after', 'later'], 1]);
      stopBreaks();
      await stop();
    });

    test('a listener that throws is reported, and others hear', async () => {
      const messages: string[] = [];
      const stops = [
        await bus.subscribe('astraml:throws', () => assert.fail('on purpose')),
        await bus.subscribe('astraml:throws', (message) => messages.push(message)),
      ];
      await bus.publish('astraml:throws', 'x');
      await until(() => messages.length === 1);
      assert.deepEqual(heard, ['trouble']);
      for (const stop of stops) await stop();
    });

    test('whoever watches sees that batches pass, not what they say', async () => {
      const redis = new Redis(server.url);
      const seen: string[][] = [];
      redis.on('pmessage', (_pattern, channel: string, message: string) => seen.push([channel, message]));
      await redis.psubscribe('astraml:*');
      await bus.append(1, 'the secret of the log');
      await bus.publish(channels.runner('rnr_1'), '{"committed":3}');
      await until(() => seen.length === 2);
      assert.deepEqual(seen, [
        ['astraml:uplink:1', ''],
        ['astraml:runner:rnr_1', '{"committed":3}'],
      ]);
      redis.disconnect();
      await drain(bus, 'one', ['the secret of the log']);
    });

    test('while Redis is away calls fail soon and subscribing does not; all comes back, empty, by itself', async () => {
      const messages: string[] = [];
      let breaks = 0;
      bus.onBreak(() => breaks++);
      heard.length = 0;
      const stop = await bus.subscribe('astraml:known', (message) => messages.push(message));
      const waiting = bus.take('one', { max: 1, blockMs: 60_000, signal });
      await Promise.all([server.kill(), assert.rejects(waiting, /^\w*Error: Redis/)]);
      const began = performance.now();
      await assert.rejects(bus.append(0, 'secret content'), (error) => !String(error).includes('secret'));
      await assert.rejects(bus.publish('astraml:known', 'x'), /Redis/);
      await assert.rejects(bus.ping(), /Redis/);
      await assert.rejects(take(bus, 'one'), /Redis/);
      const stopToo = await bus.subscribe('astraml:unknown', (message) => messages.push(message));
      assert.ok(performance.now() - began < 4_000);
      await until(() => heard.includes('away'));
      assert.deepEqual(heard, ['away']);

      await server.restart();
      await until(() => breaks === 1, { what: 'a break' });
      await until(() => bus.ping().then(() => true, () => false)); // prettier-ignore
      await bus.publish('astraml:known', 'k');
      await bus.publish('astraml:unknown', 'u');
      await until(() => messages.length === 2);
      await bus.append(0, 'again');
      assert.deepEqual(await drain(bus, 'one', ['again']), ['again']);
      assert.deepEqual(heard, ['away', 'back']);
      await stop();
      await stopToo();
    });

    test('a wrong password is reported without it', async () => {
      const wrong = new URL(server.url);
      wrong.username = 'somebody';
      wrong.password = 'hunter2';
      const errors: Error[] = [];
      const denied = redisBus(wrong.href, { onAway: (error) => errors.push(error) });
      await until(() => errors.length > 0);
      assert.match(String(errors[0]), /WRONGPASS/);
      assert.doesNotMatch(JSON.stringify({ ...errors[0], text: errors[0]?.stack }), /hunter2/);
      await denied.close();
      await assert.rejects(denied.publish('astraml:x', 'x'), /closed/);
    });
  });

  suite('A bus on a Redis that does not answer', skipUnless('own redis'), () => {
    test('a Redis that hangs is as good as away, and a stop does not wait for it', async (t) => {
      const server = await startRedis();
      const [bus, hung] = [redisBus(server.url), redisBus(server.url)];
      t.after(async () => {
        await Promise.all([bus.close(), hung.close()]);
        await server.stop();
      });
      const messages: string[] = [];
      const stop = await hung.subscribe('astraml:hung', (message) => messages.push(message));
      const waiting = take(hung, 'hung');
      await waiting;
      await server.kill('SIGSTOP');
      try {
        const began = performance.now();
        await assert.rejects(hung.publish('astraml:hung', 'x'), /Redis/);
        await assert.rejects(take(hung, 'hung'), /Redis/);
        assert.ok(performance.now() - began < 8_000);
        const ending = new AbortController();
        const aborted = bus.take('one', { max: 1, blockMs: 60_000, signal: ending.signal });
        ending.abort();
        assert.deepEqual(await aborted, []);
      } finally {
        await server.kill('SIGCONT');
      }
      const publish = () => hung.publish('astraml:hung', 'y').then(() => messages.includes('y'), () => false); // prettier-ignore
      await until(publish, { timeoutMs: 8_000 });
      await hung.append(0, 'z');
      assert.ok((await drain(hung, 'hung', ['z'])).includes('z'));
      await stop();
      await hung.close();
      await hung.close();
    });
  });
});
