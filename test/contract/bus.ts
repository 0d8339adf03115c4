// The contract of the bus port, run over every adapter: messages are hints, uplink entries stay until they are done with.
// `open` makes a bus whose entries are another consumer's after `idleMs`.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  type Bus,
  maxEntryBytes,
  NotAppended,
  uplinkShard,
  type UplinkEntry,
  uplinkStreams,
} from '../../src/bus/bus.ts';
import { until } from '../support/until.ts';

export function busContract(
  name: string,
  open: (idleMs: number) => Promise<{ bus: Bus; close: () => Promise<void> }>,
): void {
  suite(`bus contract on ${name}`, { concurrency: false }, () => {
    let bus: Bus;
    let close: () => Promise<void>;
    const { signal } = new AbortController();
    const idleMs = 1_000;
    const take = (consumer: string, max = 10, blockMs = 200) => bus.take(consumer, { max, blockMs, signal });
    /** Takes, whatever comes in between, until so many entries came or `forMs` are over. */
    const takeAll = async (consumer: string, count: number, max = 10, forMs = 10_000) => {
      const entries: UplinkEntry[] = [];
      for (const deadline = performance.now() + forMs; entries.length < count && performance.now() < deadline;) {
        entries.push(...(await take(consumer, max)));
      }
      return entries;
    };
    const textsOf = (entries: readonly UplinkEntry[]) => entries.map(({ batch }) => batch.toString());
    before(async () => ({ bus, close } = await open(idleMs)));
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
      const texts = Array.from({ length: 6 }, (_, n) => `batch ${n}`);
      for (const text of texts) await bus.append(1, text);
      const first = await takeAll('one', 4, 4);
      const second = await takeAll('two', 2, 4);
      assert.deepEqual([textsOf(first), textsOf(second)], [texts.slice(0, 4), texts.slice(4)]);
      await bus.done([...first, ...second]);
      assert.deepEqual(await take('one'), []);
    });

    test('entries that are held never come again, and keep no new ones from being taken', async () => {
      const texts = (name: string, count: number) => Array.from({ length: count }, (_, n) => `${name} ${n}`);
      for (const text of texts('held', 25)) await bus.append(0, text);
      const held = await takeAll('one', 25);
      assert.deepEqual(textsOf(held), texts('held', 25));
      for (const text of texts('new', 15)) await bus.append(0, text);
      const fresh = await takeAll('one', 15);
      assert.deepEqual(textsOf(fresh), texts('new', 15));
      await bus.done(fresh);
      assert.deepEqual(await takeAll('one', 1, 10, 3 * idleMs), [], 'however long they are held');
      await bus.done(held);
    });

    test('entries that a consumer does not end go to another one, and not to it when it still holds them', async () => {
      const texts = Array.from({ length: 12 }, (_, n) => `orphan ${n}`);
      for (const text of texts) await bus.append(3, text);
      const held = await takeAll('dead', 12);
      assert.equal(held.length, 12);
      assert.deepEqual(await take('heir'), [], 'it may still be alive');
      const inherited = await takeAll('heir', 12, 5);
      assert.deepEqual(textsOf(inherited), texts);
      assert.deepEqual(await takeAll('dead', 1, 10, 3 * idleMs), []);
      await bus.done(inherited);
      await bus.done(held); // ended by another one: no error
      assert.equal(await bus.oldest(), null);
    });

    test('the oldest entry that is not done is told, whether it waits or is held', async () => {
      assert.equal(await bus.oldest(), null);
      await bus.append(2, 'older');
      const time = (await bus.oldest())?.getTime() ?? 0;
      assert.ok(Math.abs(time - Date.now()) < 60_000, 'by a clock that is about ours');
      await until(() => Date.now() > time + 10);
      await bus.append(1, 'newer');
      const [first] = (await takeAll('one', 2)).toSorted((one, other) => other.stream - one.stream);
      assert.equal(first?.batch.toString(), 'older');
      assert.equal((await bus.oldest())?.getTime(), time);
      await bus.done([first]);
      assert.ok(((await bus.oldest())?.getTime() ?? 0) > time);
    });

    test('a probe leaves nothing behind', async () => {
      const held = await take('one', 10, 1);
      await Promise.all([bus.probe(), bus.probe(), take('one').then((entries) => assert.deepEqual(entries, []))]);
      await bus.done(held);
      await bus.append(0, 'a batch');
      const entries = await takeAll('one', 1);
      assert.deepEqual(textsOf(entries), ['a batch']);
      await bus.done(entries);
    });

    test('an entry that is too large is refused, and says how large it may be', async () => {
      const largest = 'x'.repeat(maxEntryBytes);
      await bus.append(0, largest);
      await assert.rejects(
        bus.append(0, `${largest}x`),
        (error) => error instanceof NotAppended && /1048577.*1048576/.test(error.message),
      );
      const entries = await takeAll('one', 1);
      assert.deepEqual(textsOf(entries), [largest]);
      await bus.done(entries);
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
      assert.equal(uplinkShard('att_1'), uplinkShard('att_1'));
      const streams = new Set(Array.from({ length: 100 }, (_, n) => uplinkShard(`att_${n}`)));
      assert.ok([...streams].every((stream) => stream >= 0 && stream < uplinkStreams));
      assert.equal(streams.size, uplinkStreams);
    });

    test('it answers a ping', () => bus.ping());
  });
}
