// What a runner may put on the uplink, or somebody with more rights in its place: nothing stops the other streams,
// nothing is lost, and the trouble is told by name. On a real Redis, by the commands that a stranger would send.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, beforeEach, suite, test } from 'node:test';
import { Redis } from 'ioredis';
import { type Bus, channels, maxEntryBytes, NotAppended, type UplinkEntry } from '../../src/bus/bus.ts';
import { redisBus } from '../../src/bus/redis.ts';
import { decodeBatch, encodeBatch } from '../../src/protocol/record.ts';
import { skipUnless } from '../support/absent.ts';
import { type RedisServer, startRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const lastId = '18446744073709551615-18446744073709551615';

suite('the uplink', skipUnless('own redis'), () => {
  let server: RedisServer;
  let bus: Bus;
  let stranger: Redis;
  const { signal } = new AbortController();
  const textsOf = (entries: readonly UplinkEntry[]) => entries.map(({ batch }) => batch.toString());
  /** Takes until so many entries came; rejections on the way go to `troubles`. */
  const takeAll = async (consumer: string, count: number, troubles: string[] = [], max = 10) => {
    const entries: UplinkEntry[] = [];
    const takeSome = async () => {
      await bus.take(consumer, { max, blockMs: 200, signal }).then(
        (some) => entries.push(...some),
        (error: unknown) => troubles.push(String(error)),
      );
      return entries.length >= count;
    };
    await until(takeSome, { timeoutMs: 15_000, what: `${count} entries` });
    return entries;
  };

  before(async () => {
    server = await startRedis();
    stranger = new Redis(server.url);
    bus = redisBus(server.url, { idleMs: 1_000 });
  });
  beforeEach(async () => void (await stranger.flushall()));
  after(async () => {
    stranger.disconnect();
    await bus.close();
    await server.stop();
    await expectNoLeaks();
  });

  test('gives entries whose delivery was lost, page by page, without keeping new ones or giving what is held', async () => {
    const texts = (name: string) => Array.from({ length: 40 }, (_, n) => `${name} ${n}`);
    for (const text of texts('held')) await bus.append(0, text);
    const held = await takeAll('one', 40);
    for (const text of texts('lost')) await bus.append(0, text);
    // As if the answer had been lost on its way: Redis delivered these, and nobody has them.
    await stranger.xreadgroup('GROUP', 'astraml', 'one', 'COUNT', 100, 'STREAMS', channels.uplink(0), '>');
    for (const text of texts('new')) await bus.append(0, text);
    const got = textsOf(await takeAll('one', 80));
    assert.deepEqual(got.filter((text) => text.startsWith('new')), texts('new')); // prettier-ignore
    assert.deepEqual(got.filter((text) => text.startsWith('lost')), texts('lost')); // prettier-ignore
    assert.ok(got.indexOf('new 0') < got.indexOf('lost 39'), 'new ones do not wait for the last lost one');
    await bus.done(held);
  });

  test('refuses on sight what is no batch, and ends it', async () => {
    const key = channels.uplink(1);
    const valid = encodeBatch({ version: 1, attemptId: 'a', leaseToken: 'l', first: 1, records: [] });
    const large = encodeBatch({ version: 1, attemptId: 'a'.repeat(64), leaseToken: 'l', first: 1, records: ['x'.repeat(maxEntryBytes)] }); // prettier-ignore
    assert.ok(decodeBatch(large));
    await stranger.xadd(key, '*', 'b', large);
    await stranger.xadd(key, '*', 'x', valid);
    await stranger.xadd(key, '*', '', '');
    await stranger.xadd(key, '*', 'b', valid, 'b', valid);
    await stranger.xadd(key, '*', ...Array.from({ length: 400 }, (_, n) => (n % 2 === 0 ? 'b' : 'x'.repeat(1_000))));
    await stranger.xadd(key, '*', 'p', 'x'.repeat(maxEntryBytes + 1));
    await bus.append(1, valid);
    const entries = await takeAll('one', 7);
    assert.deepEqual(textsOf(entries), ['', '', '', '', '', '', valid]);
    assert.equal(decodeBatch(entries[0]?.batch ?? valid), null, 'counted as damaged by whoever stores it');
    await bus.done(entries);
    assert.equal(await stranger.xlen(key), 0);
  });

  test('goes on with entries that somebody deleted, or ended, under way', async () => {
    const key = channels.uplink(0);
    for (const text of ['deleted', 'ended', 'kept']) await bus.append(0, text);
    const entries = await takeAll('dead', 3);
    await stranger.xdel(key, entries[0]?.id ?? '');
    await stranger.xack(key, 'astraml', entries[1]?.id ?? '');
    const left = await takeAll('heir', 1);
    assert.deepEqual(textsOf(left), ['kept']);
    await bus.done(entries);
    assert.deepEqual(await stranger.xpending(key, 'astraml'), [0, null, null, null]);
  });

  const strangers: [what: string, command: string][] = [
    ['a string', 'SET'],
    ['a list', 'RPUSH'],
  ];
  for (const [what, command] of strangers) {
    test(`reads its other streams while ${what} stands in the place of one, names it, and comes back by itself`, async () => {
      await bus.append(2, 'before');
      const waiting = bus.take('one', { max: 1, blockMs: 5_000, signal });
      const [before] = await waiting;
      const blocked = bus.take('one', { max: 1, blockMs: 1_000, signal }).catch(() => []);
      await stranger.multi().del(channels.uplink(2)).call(command, channels.uplink(2), 'junk').exec();
      await blocked;
      const troubles: string[] = [];
      for (const stream of [0, 1, 3]) await bus.append(stream, `on ${stream}`);
      const entries = await takeAll('one', 3, troubles);
      assert.deepEqual(textsOf(entries).toSorted(), ['on 0', 'on 1', 'on 3']);
      await bus.done([...(before ? [before] : []), ...entries]);
      assert.equal(await bus.oldest(), null);
      const isNamed = () => bus.take('one', { max: 1, blockMs: 50, signal }).then(() => false, (error: unknown) => String(error).includes('astraml:uplink:2')); // prettier-ignore
      await until(isNamed, { timeoutMs: 10_000, what: 'the name of the stream' });
      await assert.rejects(bus.probe(), /^Error: astraml:uplink:2 holds something that is no stream/);
      await assert.rejects(bus.append(2, 'x'), NotAppended);
      await stranger.del(channels.uplink(2));
      await bus.probe();
      await bus.append(2, 'after');
      assert.deepEqual(textsOf(await takeAll('one', 1, troubles)), ['after']);
    });
  }

  test('whose ids are used up is made anew when nothing on it is left or pending, and not before', async () => {
    await bus.append(1, 'a batch');
    await stranger.xadd(channels.uplink(1), lastId, 'b', 'x');
    await assert.rejects(bus.append(1, 'refused'), NotAppended);
    await assert.rejects(bus.probe(), /^Error: astraml:uplink:1 takes no entries: .* its 2 entries are stored\.$/);
    const entries = await takeAll('one', 2);
    assert.equal(entries[0]?.batch.toString(), 'a batch');
    await assert.rejects(bus.probe(), /its 2 entries are stored/, 'they are read, and may be lost');
    await bus.done(entries.slice(0, 1));
    await stranger.xdel(channels.uplink(1), lastId); // it is pending all the same
    await assert.rejects(bus.probe(), /its 1 entries are stored/);
    const waiting = bus.take('one', { max: 1, blockMs: 5_000, signal });
    await bus.done(entries);
    const other = redisBus(server.url);
    await Promise.all([bus.probe(), other.probe()]); // two gateways notice at once
    await other.append(1, 'again');
    assert.deepEqual(textsOf(await waiting), ['again'], 'a reader that waits goes on');
    await other.close();
  });

  test('never renews a stream that was appended to meanwhile', async () => {
    // Renewals and appends race: whenever an append is told that its entry stands, it is read.
    const taken: string[] = [];
    const got = new Set<string>();
    for (let n = 0; n < 20; n++) {
      await stranger.xadd(channels.uplink(0), lastId, 'b', 'x');
      const isOpen = async () => {
        const appends = [0, 1, 2].map((k) => bus.append(0, `${n}/${k}`).then(() => taken.push(`${n}/${k}`), () => {})); // prettier-ignore
        const entries = await bus.take('one', { max: 50, blockMs: 10, signal });
        for (const text of textsOf(entries)) got.add(text);
        await bus.done(entries);
        await Promise.all([...appends, ...[bus.probe(), bus.probe()].map((probe) => probe.catch(() => {}))]);
        return taken.at(-1)?.startsWith(`${n}/`);
      };
      await until(isOpen, { what: `an append after renewal ${n}` });
    }
    const drain = async () => {
      const entries = await bus.take('one', { max: 50, blockMs: 10, signal }).catch(() => []);
      for (const text of textsOf(entries)) got.add(text);
      await bus.done(entries);
      return taken.every((text) => got.has(text));
    };
    await until(drain, { timeoutMs: 10_000, what: `all of ${taken.length} entries` });
  });

  test('tells no age that an id makes up', async () => {
    await stranger.xadd(channels.uplink(3), '9999999999999-0', 'b', 'x');
    const first = (await bus.oldest())?.getTime() ?? NaN;
    assert.ok(first <= Date.now());
    await until(() => Date.now() > first + 20);
    assert.equal((await bus.oldest())?.getTime(), first, 'it ages');
    await bus.append(3, 'goes on');
    assert.deepEqual(textsOf(await takeAll('one', 2)), ['', 'goes on'].map((text) => text || 'x')); // prettier-ignore
    assert.equal((await bus.oldest())?.getTime(), first, 'held, it ages too');
  });

  test('ends the mark of a probe, whoever left it, and a gateway of an older version reads a batch of no attempt', async () => {
    await bus.append(0, 'x');
    await bus.done(await takeAll('one', 1)); // the group is there
    const old = new Redis(server.url);
    const key = channels.uplink(0);
    const reading = old.xreadgroup('GROUP', 'astraml', 'old', 'COUNT', 1, 'BLOCK', 10_000, 'STREAMS', key, '>');
    await until(async () => (await stranger.info('clients')).includes('blocked_clients:1'));
    await bus.probe();
    const read = (await reading) as [key: string, entries: [id: string, fields: string[]][]][];
    old.disconnect();
    const fields = read[0]?.[1][0]?.[1] ?? [];
    const batch = decodeBatch(fields[1] ?? '');
    assert.deepEqual([batch?.attemptId, batch?.records], ['probe', []]);
    // A gateway that was killed in the middle leaves its mark, here delivered and not.
    await stranger.xadd(key, '*', ...fields);
    await stranger.xreadgroup('GROUP', 'astraml', 'dead', 'STREAMS', key, '>');
    await stranger.xadd(key, '*', ...fields);
    const isEmpty = async () => {
      assert.deepEqual(await bus.take('one', { max: 5, blockMs: 50, signal }), []);
      return (await stranger.xlen(key)) === 0;
    };
    await until(isEmpty, { timeoutMs: 10_000 });
    assert.equal(((await stranger.xpending(key, 'astraml')) as number[])[0], 0);
  });

  test('holds an entry whose wake-up was refused: it is not sent again', async () => {
    await stranger.call('ACL', 'SETUSER', 'mute', 'on', '>mute', '~*', '+xadd', '+ping', '+hello');
    const mute = redisBus(server.url.replace('redis://', 'redis://mute:mute@'));
    await mute.append(0, 'taken');
    assert.equal(await stranger.xlen(channels.uplink(0)), 1);
    await mute.close();
    await stranger.call('ACL', 'DELUSER', 'mute');
  });
});
