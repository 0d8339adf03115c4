// Live: notifications leave after the commit, followers miss nothing whatever message is lost, and nobody stays behind.
import assert from 'node:assert/strict';
import { after, suite, test } from 'node:test';
import fc from 'fast-check';
import type { Bus } from '../../src/bus/bus.ts';
import { memoryBus } from '../../src/bus/memory.ts';
import { commit } from '../../src/live/commit.ts';
import { Feeds, type Reading, type SharedStream, type StreamSlice } from '../../src/live/feed.ts';
import { project } from '../../src/project/table.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { openStore } from '../support/store.ts';
import { until } from '../support/until.ts';

/** A stream of numbers that grows, and a reader of it. */
function counter(chunk = 3) {
  const state = { head: 0, end: false };
  const reader = () => {
    let position = 0;
    return async (first: boolean): Promise<Reading<number[]>> => {
      const { head, end } = state;
      await new Promise((resolve) => setImmediate(resolve));
      const to = Math.min(head, position + chunk);
      const items = Array.from({ length: to - position }, (_, n) => position + n + 1);
      position = to;
      const done = end && position === head;
      const value = first || done || items.length > 0 ? items : null;
      return { value, seen: { line: head, end: Number(end) }, more: position < head, done };
    };
  };
  return { state, reader };
}

async function collect(stream: AsyncIterable<number[]>): Promise<number[]> {
  const all: number[] = [];
  for await (const items of stream) all.push(...items);
  return all;
}

const counted = (length: number) => Array.from({ length }, (_, n) => n + 1);
const say = (bus: Bus, line: number, end = 0) => bus.publish('astraml:x', JSON.stringify({ heads: { line, end } }));

suite('a follower', () => {
  test('gets its first value at once, even when there is nothing', async () => {
    const [bus, { reader }] = [memoryBus(), counter()];
    const feeds = new Feeds(bus);
    const stream = feeds.follow({ channel: 'astraml:x', read: reader() });
    assert.deepEqual(await stream.next(), { done: false, value: [] });
    await stream.return?.();
    feeds.close();
  });

  test('gets history and what comes, in order, without a gap or a repeat, and then the end', async () => {
    const [bus, { state, reader }] = [memoryBus(), counter()];
    const feeds = new Feeds(bus);
    state.head = 10;
    const following = [1, 2, 3].map(() => collect(feeds.follow({ channel: 'astraml:x', read: reader() })));
    for (let head = 11; head <= 200; head++) {
      state.head = head;
      await say(bus, head);
      if (head % 17 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    state.end = true;
    await say(bus, 200, 1);
    for (const all of await Promise.all(following)) assert.deepEqual(all, counted(200));
    assert.equal(feeds.size, 0, 'nobody follows any more');
    feeds.close();
  });

  test('misses nothing when messages are lost: it looks again by itself', async () => {
    const [bus, { state, reader }] = [memoryBus(), counter()];
    const feeds = new Feeds(bus, 40);
    const following = collect(feeds.follow({ channel: 'astraml:x', read: reader() }));
    await new Promise((resolve) => setTimeout(resolve, 20));
    Object.assign(state, { head: 50, end: true }); // and nobody says so
    assert.deepEqual(await following, counted(50));
    feeds.close();
  });

  test('looks again when the bus was cut', async () => {
    const broken = new Set<() => void>();
    const bus: Bus = { ...memoryBus(), onBreak: (listener) => (broken.add(listener), () => broken.delete(listener)) };
    const { state, reader } = counter();
    const feeds = new Feeds(bus, 60_000);
    const following = collect(feeds.follow({ channel: 'astraml:x', read: reader() }));
    await new Promise((resolve) => setTimeout(resolve, 20));
    Object.assign(state, { head: 5, end: true });
    for (const listener of broken) listener();
    assert.deepEqual(await following, counted(5));
    feeds.close();
    assert.equal(broken.size, 0);
  });

  test('that is told to stop while it waits ends at once, and leaves nothing', async () => {
    const [bus, { reader }] = [memoryBus(), counter()];
    const feeds = new Feeds(bus);
    const stream = feeds.follow({ channel: 'astraml:x', read: reader() });
    await stream.next();
    const waiting = stream.next();
    assert.equal(feeds.size, 1);
    await stream.return?.();
    assert.deepEqual(await waiting, { done: true, value: undefined });
    assert.deepEqual(await stream.next(), { done: true, value: undefined });
    assert.equal(feeds.size, 0);
    feeds.close();
  });

  test('whose reader fails gets the failure, and ends', async () => {
    const feeds = new Feeds(memoryBus());
    const stream = feeds.follow({ channel: 'astraml:x', read: () => Promise.reject(new Error('on purpose')) });
    await assert.rejects(Promise.resolve(stream.next()), /on purpose/);
    assert.deepEqual(await stream.next(), { done: true, value: undefined });
    assert.equal(feeds.size, 0);
    feeds.close();
  });

  test('with a least interval gets the newest, not a queue', async () => {
    const [bus, { state, reader }] = [memoryBus(), counter(1_000)];
    const feeds = new Feeds(bus);
    const batches: number[][] = [];
    const following = (async () => {
      for await (const batch of feeds.follow({ channel: 'astraml:x', read: reader(), minIntervalMs: 100 }))
        batches.push(batch);
    })();
    for (let head = 1; head <= 30; head++) {
      state.head = head;
      await say(bus, head);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    state.end = true;
    await say(bus, 30, 1);
    await following;
    assert.deepEqual(batches.flat(), counted(30));
    assert.ok(batches.length <= 8, `${batches.length} batches in about 300 ms`);
    feeds.close();
  });

  test('leaves feeds at nothing after a thousand come and go', async () => {
    const [bus, { state, reader }] = [memoryBus(), counter()];
    const feeds = new Feeds(bus);
    for (let n = 0; n < 1_000; n++) {
      const stream = feeds.follow({ channel: `astraml:${n % 7}`, read: reader() });
      if (n % 3) await stream.next();
      const waiting = n % 2 ? stream.next() : undefined;
      state.head++;
      await stream.return?.();
      await waiting;
    }
    assert.equal(feeds.size, 0);
    feeds.close();
  });
});

/** The same stream for followers that share it, with rows that come with the messages. */
function sharedCounter(ringBytes: number) {
  const state = { head: 0, end: false, away: false, reads: 0 };
  const slice = (after: number, position: number, head: number, end: boolean): StreamSlice<number[]> => {
    const value = Array.from({ length: position - after }, (_, n) => after + n + 1);
    const more = position < head;
    const seen = { line: head, end: Number(end) };
    return { value, empty: value.length === 0, position, seen, more, done: end && !more, sizeBytes: value.length };
  };
  const from = (start: number): SharedStream<number[]> => ({
    key: 'numbers',
    start,
    ringBytes,
    async read(after, to) {
      state.reads++;
      const { head, end } = state;
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 3));
      if (state.away) throw Object.assign(new Error('away'), { code: 'ECONNREFUSED' });
      return slice(after, Math.min(head, to ?? head, after + 50), head, end);
    },
    fromNotification({ heads: { line = 0, end }, records = [] }, after) {
      const isWhole = records.length > 0 && line - records.length === after && end === 0;
      return isWhole ? slice(after, line, line, false) : null;
    },
  });
  return { state, from };
}

suite('followers of the same stream', () => {
  test('get all of it in order, whatever messages are lost, late or repeated, and whoever comes, sleeps or leaves', async () => {
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ grow: fc.nat(9), say: fc.constantFrom('rows', 'heads', 'lost', 'late', 'twice') }),
      },
      { weight: 2, arbitrary: fc.record({ join: fc.double({ min: 0, max: 1, noNaN: true }) }) },
      { weight: 1, arbitrary: fc.record({ sleep: fc.nat(20), leave: fc.nat(20) }) },
      { weight: 1, arbitrary: fc.record({ grow: fc.constant(120), say: fc.constant('heads') }) },
      { weight: 1, arbitrary: fc.record({ awayMs: fc.integer({ min: 4, max: 10 }) }) },
      { weight: 2, arbitrary: fc.record({ pauseMs: fc.nat(6) }) },
    );
    const run = async (steps: Record<string, number | string>[], ringBytes: number) => {
      const bus = memoryBus();
      const { state, from } = sharedCounter(ringBytes);
      const feeds = new Feeds(bus, 40);
      const followers: {
        start: number;
        got: number[];
        opened: boolean;
        sleeping: boolean;
        left: boolean;
        end: Promise<void>;
        stream: AsyncIterableIterator<number[]>;
      }[] = [];
      const join = (start: number) => {
        const stream = feeds.follow({ channel: 'astraml:x', shared: from(start) });
        const follower = {
          start,
          got: [] as number[],
          opened: false,
          sleeping: false,
          left: false,
          end: Promise.resolve(),
          stream,
        };
        follower.end = (async () => {
          for await (const rows of stream) {
            follower.opened = true;
            follower.got.push(...rows);
            while (follower.sleeping) await new Promise((resolve) => setTimeout(resolve, 2));
          }
        })();
        followers.push(follower);
      };
      const late: (() => Promise<void>)[] = [];
      join(0);
      await new Promise((resolve) => setTimeout(resolve, 5));
      for (const { grow = 0, say, join: at, sleep, leave, awayMs, pauseMs } of steps as Record<string, never>[]) {
        if (grow) {
          state.head += grow;
          const heads = { line: state.head, end: 0 };
          const records = say === 'heads' ? [] : Array.from({ length: grow }, () => ({}));
          const tell = () => bus.publish('astraml:x', JSON.stringify({ heads, records }));
          if (say === 'late') late.push(tell);
          else if (say !== 'lost') await tell();
          if (say === 'twice') await tell();
        }
        if (at !== undefined) join(Math.floor(at * state.head));
        if (pauseMs) await new Promise((resolve) => setTimeout(resolve, pauseMs));
        if (awayMs) {
          // At its beginning a stream may fail: not here.
          await until(() => followers.every(({ opened, left }) => opened || left));
          state.away = true;
          state.head += 3;
          await bus.publish('astraml:x', JSON.stringify({ heads: { line: state.head, end: 0 } }));
          await new Promise((resolve) => setTimeout(resolve, awayMs));
          state.away = false;
        }
        if (sleep !== undefined && leave !== undefined) {
          const sleeper = followers[sleep];
          if (sleeper) sleeper.sleeping = !sleeper.sleeping;
          const leaver = followers[leave];
          if (leaver) leaver.left = true;
          await leaver?.stream.return?.();
          await late.shift()?.();
        }
      }
      state.end = true;
      for (const follower of followers) follower.sleeping = false;
      await Promise.all(followers.map(({ end }) => end));
      for (const { start, got, left } of followers) {
        const wanted = Array.from({ length: left ? got.length : state.head - start }, (_, n) => start + n + 1);
        assert.deepEqual(got, wanted);
      }
      assert.equal(feeds.size, 0);
      feeds.close();
    };
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 20, maxLength: 60 }),
        fc.constantFrom(0, 5, 30, 10_000),
        (steps, ringBytes) => run(steps as Record<string, number | string>[], ringBytes),
      ),
      { numRuns: 12 },
    );
  });

  test('cost one reading a message, or none when it brings the rows, however many they are', async () => {
    const bus = memoryBus();
    const { state, from } = sharedCounter(10_000);
    const feeds = new Feeds(bus, 60_000);
    const following = Array.from({ length: 200 }, () =>
      collect(feeds.follow({ channel: 'astraml:x', shared: from(0) })),
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    const opened = state.reads;
    assert.ok(opened <= 2, `${opened} reads for those who came at once`);
    const tell = async (records: object[], end = 0) => {
      await bus.publish('astraml:x', JSON.stringify({ heads: { line: state.head, end }, records }));
      await new Promise((resolve) => setTimeout(resolve, 20));
    };
    for (let n = 0; n < 10; n++) {
      state.head += 2;
      await tell([]);
    }
    assert.equal(state.reads - opened, 10);
    for (let n = 0; n < 10; n++) {
      state.head += 2;
      await tell([{}, {}]);
    }
    assert.equal(state.reads - opened, 10);
    state.end = true;
    await tell([], 1);
    for (const all of await Promise.all(following)) assert.deepEqual(all, counted(40));
    feeds.close();
  });
});

suite('commit', () => {
  test('notifications after the commit only, once a channel, with the highest numbers', async () => {
    const store = await openStore();
    const heard: string[] = [];
    await store.bus.subscribe('astraml:job:1', (message) => heard.push(message));
    await commit(store, async (tx) => {
      tx.notify('astraml:job:1', { line: 5, window: 1 });
      await tx.insert(project).values({ id: 'p-nudged', name: 'x' });
      tx.notify('astraml:job:1', { line: 7 }, ['{"a":1}']);
      tx.notify('astraml:job:1', { line: 6 }, ['{"b":2}']);
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.deepEqual(heard, []);
    });
    await until(() => heard.length > 0, { timeoutMs: 2_000 });
    assert.deepEqual(
      heard.map((message) => JSON.parse(message) as object),
      [{ heads: { line: 7, window: 1 }, records: [{ a: 1 }, { b: 2 }] }],
    );
    const failing = commit(store, async (tx) => {
      tx.notify('astraml:job:1', { line: 9 });
      throw new Error('on purpose');
    });
    await assert.rejects(failing, /on purpose/);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(heard.length, 1, 'what was rolled back is told to nobody');
    await store.close();
  });
});

after(() => expectNoLeaks());
