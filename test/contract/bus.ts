// The contract of the bus port, run over every adapter: messages are hints, uplink entries stay until they are done with.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { type Bus, streamOf, uplinkStreams } from '../../src/bus/bus.ts';
import { until } from '../support/until.ts';

export function busContract(name: string, open: () => Promise<{ bus: Bus; close: () => Promise<void> }>): void {
  suite(`bus contract on ${name}`, () => {
    let bus: Bus;
    let close: () => Promise<void>;
    const { signal } = new AbortController();
    const take = (consumer: string, max = 10, blockMs = 200) => bus.take(consumer, { max, blockMs, signal });
    before(async () => ({ bus, close } = await open()));
    after(() => close());

    test('a message reaches every listener of its channel, in order, and no other', async () => {
      const heard: string[][] = [[], [], []];
      const stops = await Promise.all([
        bus.subscribe('astraml:a', (message) => heard[0]?.push(message)),
        bus.subscribe('astraml:a', (message) => heard[1]?.push(message)),
        bus.subscribe('astraml:b', (message) => heard[2]?.push(message)),
      ]);
      for (const message of ['1', '2', 'ü 3']) await bus.publish('astraml:a', message);
      await until(() => heard[0]?.length === 3 && heard[1]?.length === 3, { timeoutMs: 2_000 });
      assert.deepEqual(heard, [['1', '2', 'ü 3'], ['1', '2', 'ü 3'], []]);
      await stops[0]?.();
      await bus.publish('astraml:a', '4');
      await until(() => heard[1]?.length === 4, { timeoutMs: 2_000 });
      assert.equal(heard[0]?.length, 3, 'who stopped listening hears nothing more');
      await Promise.all(stops.map((stop) => stop())); // stopping twice is fine
    });

    test('a message arrives after the call that sent it', async () => {
      let heard = false;
      const stop = await bus.subscribe('astraml:later', () => (heard = true));
      const sent = bus.publish('astraml:later', 'x');
      assert.equal(heard, false);
      await sent;
      await until(() => heard, { timeoutMs: 2_000 });
      await stop();
    });

    test('entries come in the order of their stream, each to one consumer', async () => {
      for (let n = 0; n < 6; n++) await bus.append(1, `batch ${n}`);
      const first = await take('one', 4);
      const second = await take('two', 4);
      const texts = [...first, ...second].map((entry) => entry.batch.toString());
      assert.deepEqual(texts.toSorted(), ['batch 0', 'batch 1', 'batch 2', 'batch 3', 'batch 4', 'batch 5']);
      assert.deepEqual(
        first.map((entry) => entry.batch.toString()),
        first.map((entry) => entry.batch.toString()).toSorted(),
      );
      await bus.done([...first, ...second]);
      assert.deepEqual(await take('one'), []);
    });

    test('an entry that is not done with comes again to who took it, before new ones', async () => {
      await bus.append(0, 'again');
      const [first] = await take('one');
      assert.equal(first?.batch.toString(), 'again');
      const [second] = await take('one');
      assert.deepEqual(second, first);
      await bus.done([first]);
      assert.deepEqual(await take('one'), []);
    });

    test('a consumer that waits gets an entry when it comes, and nothing when the time is over', async () => {
      const began = performance.now();
      const waiting = take('one', 10, 5_000);
      await bus.append(2, 'late');
      const entries = await waiting;
      assert.deepEqual(
        entries.map((entry) => [entry.stream, entry.batch.toString()]),
        [[2, 'late']],
      );
      assert.ok(performance.now() - began < 2_000);
      await bus.done(entries);
      assert.deepEqual(await take('one', 10, 50), []);
    });

    test('a wait ends when its signal does', async () => {
      const ending = new AbortController();
      const waiting = bus.take('one', { max: 1, blockMs: 60_000, signal: ending.signal });
      ending.abort();
      assert.deepEqual(await waiting, []);
    });

    test('an attempt has one stream', () => {
      assert.equal(streamOf('att_1'), streamOf('att_1'));
      const streams = new Set(Array.from({ length: 100 }, (_, n) => streamOf(`att_${n}`)));
      assert.ok([...streams].every((stream) => stream >= 0 && stream < uplinkStreams));
      assert.equal(streams.size, uplinkStreams);
    });

    test('it answers a ping', () => bus.ping());
  });
}
