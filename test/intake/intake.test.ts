// Intake: what a runner sends is stored once and in order, and nothing else ever is. On real Postgres where there is one.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { eq, sql } from 'drizzle-orm';
import { loadAttempts, renewLease } from '../../src/attempt/attempt.ts';
import { claimJob } from '../../src/attempt/claim.ts';
import { listLapsed } from '../../src/attempt/end.ts';
import { attempt } from '../../src/attempt/table.ts';
import { channels } from '../../src/bus/bus.ts';
import { unpackBytes } from '../../src/database/columns.ts';
import { event } from '../../src/event/table.ts';
import { startConsumer } from '../../src/intake/consumer.ts';
import { noCounts } from '../../src/intake/counts.ts';
import { takeBatches } from '../../src/intake/intake.ts';
import { expireLease } from '../../src/intake/lost.ts';
import { refusedRecord } from '../../src/intake/table.ts';
import { changeJob, readJob } from '../../src/job/job.ts';
import { commit, type Notification, type Tx } from '../../src/live/commit.ts';
import { readLog } from '../../src/log/read.ts';
import { linesOfNotification } from '../../src/log/notification.ts';
import { listMetrics, readWindowChanges } from '../../src/metric/metric.ts';
import type { Assignment } from '../../src/protocol/control.ts';
import { decodeBatch, encodeBatch, linesCrcAfter, nextLinesCrc, parseRecord } from '../../src/protocol/record.ts';
import { type Runner, touchRunner } from '../../src/runner/runner.ts';
import { runner as runners } from '../../src/runner/table.ts';
import { batchOf, newJob, newRunner, openStore, type TestStore } from '../support/store.ts';
import { until } from '../support/until.ts';
import fc from 'fast-check';

let store: TestStore;
let runner: Runner;
before(async () => {
  store = await openStore();
  runner = await newRunner(store, 'many', 64);
});
after(() => store.close());

const leaseSeconds = 30;
let requests = 0;

async function claim(): Promise<Assignment> {
  await newJob(store, { priority: 100 });
  const request = {
    runnerId: runner.id,
    freeGpus: runner.gpus.map((gpu) => gpu.index),
    requestId: `r${requests++}`,
    waitSeconds: 0,
  };
  const assignment = await commit(store, (tx) => claimJob(tx, store.runnerActor, request, leaseSeconds));
  assert.ok(assignment);
  return assignment;
}

async function send(to: Assignment, first: number, records: unknown[], leaseToken = to.leaseToken) {
  const counts = noCounts();
  const batch = batchOf({ ...to, leaseToken }, first, records);
  const acknowledged = await commit(store, (tx) => takeBatches(tx, [batch], leaseSeconds, counts));
  return { counts, acknowledgement: acknowledged[0]?.acknowledgement };
}

const line = (text: string) => ({ type: 'line', time: Date.now(), stream: 'STDOUT', text });
const points = (values: object, step: number | null = null, time = Date.now()) => ({
  type: 'points',
  time,
  step,
  epoch: null,
  values,
});
const started = () => ({ type: 'started', time: Date.now() });
const finished = (lines: string[], more: object = {}) => ({
  type: 'finished',
  time: Date.now(),
  outcome: 'EXITED',
  exitCode: 0,
  signal: null,
  message: '',
  lines: lines.length,
  linesCrc: lines.reduce(nextLinesCrc, 0),
  ...more,
});

async function logOf(jobId: string) {
  const { line: head } = await readJob(store.database.db, jobId);
  return readLog(store.database.db, jobId, { after: 0, head, maxLines: 1e6, maxBytes: Infinity });
}
const texts = async (jobId: string) => (await logOf(jobId)).lines.map((item) => item.text);

suite('records', () => {
  test('are stored in order, and acknowledged up to the last', async () => {
    const to = await claim();
    const { acknowledgement, counts } = await send(to, 1, [started(), line('a'), line('b')]);
    assert.deepEqual(acknowledgement, { attemptId: to.attemptId, committed: 3, directives: [], send: 1 });
    assert.equal(counts.records, 3);
    assert.deepEqual(await texts(to.job.id), ['a', 'b']);
    assert.equal((await readJob(store.database.db, to.job.id)).job.state, 'RUNNING');
  });

  test('that come again, whole or in part, are dropped', async () => {
    const to = await claim();
    await send(to, 1, [line('a'), line('b')]);
    const again = await send(to, 1, [line('a'), line('b')]);
    assert.deepEqual([again.counts.duplicates, again.acknowledgement?.committed], [2, 2]);
    const partly = await send(to, 2, [line('b'), line('c')]);
    assert.deepEqual([partly.counts.duplicates, partly.counts.records, partly.acknowledgement?.committed], [1, 1, 3]);
    assert.deepEqual(await texts(to.job.id), ['a', 'b', 'c']);
  });

  test('behind a hole are refused, and the acknowledgement says what is missing', async () => {
    const to = await claim();
    await send(to, 1, [line('a')]);
    const hole = await send(to, 3, [line('c')]);
    assert.deepEqual([hole.counts.holes, hole.acknowledgement?.committed], [1, 1]);
    await send(to, 2, [line('b'), line('c')]);
    assert.deepEqual(await texts(to.job.id), ['a', 'b', 'c']);
  });

  test('with a wrong lease token are never stored, and their sender is told to stop', async () => {
    const to = await claim();
    const fenced = await send(to, 1, [line('x')], 'lease_wrong');
    assert.deepEqual([fenced.counts.fenced, fenced.acknowledgement?.directives], [1, [{ type: 'ABANDON' }]]);
    assert.deepEqual(await texts(to.job.id), []);
  });

  test('after the end of their attempt are never stored', async () => {
    const to = await claim();
    await send(to, 1, [started(), line('a'), finished(['a'])]);
    const late = await send(to, 4, [line('late'), points({ x: 1 })]);
    assert.deepEqual([late.counts.fenced, late.acknowledgement?.committed], [1, 3]);
    assert.deepEqual(await texts(to.job.id), ['a']);
    assert.deepEqual(await listMetrics(store.database.db, to.job.id, null), []);
  });

  test('that were damaged, or name no attempt, are dropped and stop nobody', async () => {
    const to = await claim();
    const good = encodeBatch({
      version: 1,
      attemptId: to.attemptId,
      leaseToken: to.leaseToken,
      first: 1,
      records: [line('a')],
    });
    const stranger = encodeBatch({ version: 1, attemptId: 'att_none', leaseToken: 'x', first: 1, records: [] });
    const consumer = startConsumer(store, { leaseSeconds, maxMetricNames: Infinity, report: assert.ifError });
    for (const text of [good.replace('"a"', '"b"'), 'nonsense', '', stranger, good]) await store.bus.append(0, text);
    await until(() => consumer.counts.records === 1, { timeoutMs: 10_000 });
    await consumer.stop();
    assert.equal(consumer.counts.damaged, 3);
    assert.deepEqual(await texts(to.job.id), ['a']);
  });

  test('that are lines are read as their shape says, and keep nothing that it does not name', () => {
    const plain = { type: 'line', time: 1, stream: 'STDERR', text: 'a' };
    assert.deepEqual(parseRecord({ ...plain }), plain);
    assert.deepEqual(parseRecord({ ...plain, more: 1 }), plain);
    assert.deepEqual(parseRecord({ ...plain, truncated: true }), { ...plain, truncated: true });
    const wrong = {
      time: [-1, 0.5, NaN, 8.64e15 + 2, '1', null],
      stream: ['stdout', 1],
      text: ['x'.repeat(32_769), 1],
    };
    for (const [key, values] of Object.entries(wrong)) {
      for (const value of values) assert.equal(parseRecord({ ...plain, [key]: value }), null, `${key}: ${value}`);
    }
  });

  test('that are lines have one checksum, whether it is carried on by line or by batch', () => {
    const lines = fc.array(fc.string({ unit: 'binary' }), { maxLength: 5 });
    fc.assert(
      fc.property(lines, lines, (a, b) => {
        assert.equal(linesCrcAfter(linesCrcAfter(0, a), b), [...a, ...b].reduce(nextLinesCrc, 0));
      }),
    );
  });

  test('of no known shape are set aside alone, whole, and show as a gap', async () => {
    const to = await claim();
    const unknown = [
      { type: 'riddle', answer: 42 },
      { type: 'line', time: 'now' },
    ];
    const { counts, acknowledgement } = await send(to, 1, [line('a'), points({ x: 1 }), ...unknown, line('b')]);
    assert.deepEqual([counts.records, counts.refused, acknowledgement?.committed], [3, 2, 5]);
    const { lines, gaps } = await logOf(to.job.id);
    assert.deepEqual(
      lines.map(({ seq, text }) => `${seq} ${text}`),
      ['1 a', '4 b'],
    );
    assert.deepEqual(
      gaps.map(({ fromSeq, toSeq, reason }) => [fromSeq, toSeq, reason]),
      [
        [2, 2, 'REFUSED'],
        [3, 3, 'REFUSED'],
      ],
    );
    const kept = await store.database.db.select().from(refusedRecord).where(eq(refusedRecord.attemptId, to.attemptId));
    assert.deepEqual(
      kept.map(({ number, record }) => [number, JSON.parse(unpackBytes(record)) as unknown]),
      [
        [3, unknown[0]],
        [4, unknown[1]],
      ],
    );
  });

  test('are told as they are stored', async () => {
    const to = await claim();
    const heard: Notification[] = [];
    const stop = await store.bus.subscribe(channels.job(to.job.id), (text) =>
      heard.push(JSON.parse(text) as Notification),
    );
    const gap = { type: 'gap', time: Date.now(), lines: 10, reason: 'SPOOL_OVERFLOW' };
    const batches: [first: number, records: unknown[]][] = [
      [1, [started(), line('as "records":[] sent \0'), points({ loss: 1 }), { ...line('cut'), truncated: true }]],
      [3, [points({ loss: 1 }), { ...line('came before'), truncated: true }, line('b'), started()]],
      [7, [{ ...line('from the past'), time: 5 }, gap, line('c')]],
      [10, [{ ...gap, lines: 8 }, line('c'), line('d')]], // to 17 and 18, which are stored
    ];
    for (const [first, records] of batches) {
      const { line: before } = await readJob(store.database.db, to.job.id);
      await send(to, first, records);
      const message = await until(() => heard.splice(0).find((notification) => notification.records), {
        timeoutMs: 2_000,
      });
      const { line: head } = await readJob(store.database.db, to.job.id);
      const limits = { after: before, head };
      const stored = await readLog(store.database.db, to.job.id, { ...limits, maxLines: 1e6, maxBytes: Infinity });
      assert.ok(stored.lines.length > 0);
      assert.deepEqual(linesOfNotification(message.records ?? [], limits), stored);
    }
    await stop();
  });

  test('are found in a batch by their key alone, wherever its quotes stand', () => {
    const batch = {
      version: 1 as const,
      attemptId: '"records":[1]}',
      leaseToken: 'x',
      first: 1,
      send: 2,
      records: [[{}]],
    };
    assert.deepEqual(decodeBatch(encodeBatch(batch)), { ...batch, recordsJson: Buffer.from('[[{}]]') });
    const encode = (json: string) => crc32(json).toString(16).padStart(8, '0') + json;
    const head = '"version":1,"attemptId":"a","leaseToken":"b","first":1';
    assert.ok(decodeBatch(encode(`{${head},"records":[]}`)));
    for (const wrong of [
      '',
      ',"records":{}',
      ',"x":{"records":[]},"records":[]',
      ',"records":[],"records":[]',
      ',"records":[]}',
    ])
      assert.equal(decodeBatch(encode(`{${head}${wrong}}`)), null, wrong);
    assert.equal(decodeBatch(encode(`{${head},"records":[]]`)), null);
  });

  test('keep every character of a line', async () => {
    const to = await claim();
    const nasty = ['NUL \0 here', '\u001b]52;c;AAAA\u0007', '<img onerror=alert(1)>', '👍 ü \ufffd', '', 'a\tb\\"'];
    await send(to, 1, nasty.map(line));
    assert.deepEqual(await texts(to.job.id), nasty);
  });

  test('of lost lines take their numbers, and show as a gap', async () => {
    const to = await claim();
    await send(to, 1, [line('a'), { type: 'gap', time: Date.now(), lines: 10, reason: 'SPOOL_OVERFLOW' }, line('b')]);
    const { lines, gaps } = await logOf(to.job.id);
    assert.deepEqual(
      lines.map(({ seq }) => seq),
      [1, 12],
    );
    assert.deepEqual(gaps, [{ fromSeq: 2, toSeq: 11, reason: 'SPOOL_OVERFLOW' }]);
    const { acknowledgement } = await send(to, 13, [line('c')]);
    assert.equal(acknowledgement?.committed, 13);
  });

  test('of lost lines that are stored in part already count for the rest', async () => {
    const to = await claim();
    const gap = (lines: number) => ({ type: 'gap', time: Date.now(), lines, reason: 'SPOOL_OVERFLOW' });
    await send(to, 1, [line('a'), line('b'), line('c')]);
    const { counts, acknowledgement } = await send(to, 2, [gap(5), line('d')]); // 2 to 6, of which 2 and 3 are here
    assert.deepEqual([counts.records, counts.duplicates, acknowledgement?.committed], [2, 0, 7]);
    const again = await send(to, 4, [gap(3), line('d'), finished(['a', 'b', 'c', 'd'])]);
    assert.deepEqual([again.counts.duplicates, again.acknowledgement?.committed], [2, 8]);
    const { lines, gaps } = await logOf(to.job.id);
    assert.deepEqual(
      lines.map(({ seq, text }) => `${seq} ${text}`),
      ['1 a', '2 b', '3 c', '7 d'],
    );
    assert.deepEqual(gaps, [{ fromSeq: 4, toSeq: 6, reason: 'SPOOL_OVERFLOW' }]);
    const alerts = await store.database.db
      .select()
      .from(event)
      .where(sql`${event.jobId} = ${to.job.id} and ${event.type} = 'ALERT'`);
    assert.deepEqual(alerts, [], 'counts and checksum agree without the lost lines');
  });

  test('end the job with the excerpt of its log when it fails', async () => {
    const to = await claim();
    const lines = Array.from({ length: 20 }, (_, n) => `line ${n}`);
    await send(to, 1, [started(), ...lines.map(line), finished(lines, { exitCode: 3 })]);
    const { job } = await readJob(store.database.db, to.job.id);
    assert.deepEqual([job.state, job.reasonCode], ['FAILED', 'EXIT_CODE']);
    assert.deepEqual(job.logExcerpt, lines.slice(10));
    assert.ok(job.finishedAt && job.startedAt);
  });

  test('whose count or checksum differs from what is stored leave an alert', async () => {
    const to = await claim();
    await send(to, 1, [started(), line('a'), finished(['b'])]);
    const alerts = await store.database.db
      .select()
      .from(event)
      .where(sql`${event.jobId} = ${to.job.id} and ${event.type} = 'ALERT'`);
    assert.equal(alerts.length, 1);
  });

  test('of one batch and many, in any cut and with any repeats, give the same log', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(fc.nat(30), fc.nat(12)), { maxLength: 12 }), async (sends) => {
        const to = await claim();
        const all = Array.from({ length: 30 }, (_, n) => line(`line ${n}`));
        for (const [from, length] of sends) await send(to, from + 1, all.slice(from, from + length));
        const { acknowledgement } = await send(to, 1, all);
        assert.equal(acknowledgement?.committed, 30);
        assert.deepEqual(
          await texts(to.job.id),
          all.map(({ text }) => text),
        );
      }),
      { numRuns: 25 },
    );
  });
});

suite('points', () => {
  test('are merged once into windows by their own time, which close behind the grace', async () => {
    const to = await claim();
    const { createdAt } = (await loadAttempts(store.database.db, [to.attemptId])).get(to.attemptId) ?? {};
    assert.ok(createdAt);
    const base = Math.ceil(createdAt.getTime() / 30_000) * 30_000; // the start of a window that lies ahead
    await store.database.db
      .update(attempt)
      .set({ createdAt: new Date(base - 100_000) })
      .where(eq(attempt.id, to.attemptId));
    const at = (seconds: number) => base - 90_000 + seconds * 1000;
    const records = [
      points({ loss: 4 }, 1, at(0)),
      points({ loss: 2, acc: 0.5 }, 2, at(1)),
      points({ loss: 8 }, 3, at(31)),
    ];
    await send(to, 1, records);
    await send(to, 1, records);
    const windows = () =>
      readWindowChanges(
        store.database.db,
        to.job.id,
        { after: 0, head: 1e9, limit: 100 },
        { names: ['loss'], closedOnly: false },
      );
    const seen = (await windows()).map(({ state, closed, revision }) => [
      state.count,
      state.sum,
      state.min,
      state.max,
      closed,
      revision,
    ]);
    assert.deepEqual(seen, [
      [2, 6, 2, 4, false, 1],
      [1, 8, 8, 8, false, 1],
    ]);
    await send(to, 4, [points({ loss: 1 }, 4, at(61))]);
    // The first ended at 30 s and its grace at 60 s; the second is still within its own.
    assert.deepEqual(
      (await windows()).toSorted((a, b) => a.start - b.start).map(({ closed }) => closed),
      [true, false, false],
    );
    const [summary] = await listMetrics(store.database.db, to.job.id, ['loss']);
    assert.deepEqual([summary?.count, summary?.last.value, summary?.min?.value, summary?.max?.value], [4, 1, 1, 8]);
    await send(to, 5, [started(), finished([])]);
    const end = await windows();
    assert.ok(end.every(({ closed }) => closed));
    assert.equal(new Set(end.map(({ change }) => change)).size, end.length, 'every change has its own number');
  });

  test('that are not finite, negative, huge or tiny are kept', async () => {
    const to = await claim();
    const values = { a: 'NaN', b: 'Infinity', c: '-Infinity', d: 1e308, e: -1e308, f: -0, g: 5e-324 };
    await send(to, 1, [points(values), points(values)]);
    const metrics = await listMetrics(store.database.db, to.job.id, null);
    assert.deepEqual(
      metrics.map(({ name, last, min }) => [name, last.value, min?.value ?? null]),
      [
        ['a', 'NaN', null],
        ['b', 'Infinity', null],
        ['c', '-Infinity', null],
        ['d', 1e308, 1e308],
        ['e', -1e308, -1e308],
        ['f', 0, 0],
        ['g', 5e-324, 5e-324],
      ],
    );
  });
});

suite('a lease', () => {
  const lapse = (attemptId: string) =>
    store.database.db
      .update(attempt)
      .set({ leaseExpiresAt: sql`clock_timestamp() - interval '1 s'` })
      .where(eq(attempt.id, attemptId));

  test('of which nothing was heard lapses, and the job queues again', async () => {
    const to = await claim();
    await send(to, 1, [started(), line('a'), points({ x: 1 })]);
    await lapse(to.attemptId);
    const lapsed = (await listLapsed(store.database.db, 10)).find(({ id }) => id === to.attemptId);
    assert.ok(lapsed);
    assert.equal(await commit(store, (tx) => expireLease(tx, lapsed)), true);
    assert.equal((await readJob(store.database.db, to.job.id)).job.state, 'QUEUED');
    const row = (await loadAttempts(store.database.db, [to.attemptId])).get(to.attemptId);
    assert.deepEqual([row?.reasonCode, row?.logExcerpt], ['RUNNER_LOST', ['a']]);
    assert.match(row?.reasonHint ?? '', /^Look whether the runner is up/);
    assert.deepEqual((await send(to, 4, [line('too late')])).acknowledgement?.directives, [{ type: 'ABANDON' }]);
    assert.deepEqual((await texts(to.job.id)).length, 2, 'its line, and ours that says what happened');
    const renewed = await commit(store, (tx) =>
      renewLease(tx, store.runnerActor, { attemptId: to.attemptId, leaseToken: to.leaseToken, leaseSeconds }),
    );
    assert.deepEqual(renewed.directives, [{ type: 'ABANDON' }]);
  });

  test('that was renewed in the meantime is not lost', async () => {
    const to = await claim();
    await lapse(to.attemptId);
    const [lapsed] = (await listLapsed(store.database.db, 10)).filter(({ id }) => id === to.attemptId);
    assert.ok(lapsed);
    await send(to, 1, []); // a heartbeat
    assert.equal(await commit(store, (tx) => expireLease(tx, lapsed)), false);
    assert.equal((await readJob(store.database.db, to.job.id)).job.state, 'STARTING');
  });

  test('that is lost five times in a row fails the job', async () => {
    await newJob(store, { priority: 100 });
    let id: string | undefined;
    for (let n = 1; n <= 5; n++) {
      const request = { runnerId: runner.id, freeGpus: [60], requestId: `lost${n}`, waitSeconds: 0 };
      const to = await commit(store, (tx) => claimJob(tx, store.runnerActor, request, leaseSeconds));
      id ??= to?.job.id;
      assert.equal(to?.job.id, id);
      await lapse(to?.attemptId ?? '');
      for (const lapsed of await listLapsed(store.database.db, 100)) {
        if (lapsed.id === to?.attemptId) await commit(store, (tx) => expireLease(tx, lapsed)); // others may be slow
      }
    }
    const { job } = await readJob(store.database.db, id ?? '');
    assert.deepEqual([job.state, job.reasonCode], ['FAILED', 'RUNNER_LOST']);
  });
});

suite('locks of a job come before that of its runner', () => {
  const long = sql`clock_timestamp() - interval '10 s'`;
  const forget = () =>
    store.database.db.update(runners).set({ lastSeenAt: long, claimedAt: long }).where(eq(runners.id, runner.id));

  /** Works on a job and its runner as intake does, while `other` is under way; how often each had to begin. */
  async function meet(jobId: string, other: (tx: Tx) => Promise<unknown>): Promise<[number, number]> {
    await forget();
    const begun: [number, number] = [0, 0];
    const locked = Promise.withResolvers<void>();
    const stored = commit(store, async (tx) => {
      begun[0]++;
      await changeJob(tx, jobId, async () => {
        locked.resolve();
        await sleep(500); // the other comes as far as it can
      });
      await touchRunner(tx, runner.id);
    });
    await locked.promise;
    await commit(store, (tx) => {
      begun[1]++;
      return other(tx);
    });
    await stored;
    return begun;
  }

  test('when a lease is renewed over HTTP while a batch is stored', async () => {
    const { attemptId, leaseToken, job } = await claim();
    const renewal = { attemptId, leaseToken, leaseSeconds };
    assert.deepEqual(await meet(job.id, (tx) => renewLease(tx, store.runnerActor, renewal)), [1, 1]);
  });

  test('when a job is claimed while a batch of its earlier attempt is stored', async () => {
    const { id } = await newJob(store, { priority: 100 });
    const request = { runnerId: runner.id, freeGpus: [50], requestId: 'locks', waitSeconds: 0 };
    const claimed = await meet(id, (tx) => claimJob(tx, store.runnerActor, request, leaseSeconds));
    assert.deepEqual(claimed, [1, 1]);
  });

  test('and a runner of which nothing was heard for long gets its job at once', async () => {
    await newJob(store, { priority: 100 });
    const away = sql`clock_timestamp() - interval '1 hour'`;
    await store.database.db.update(runners).set({ lastSeenAt: away }).where(eq(runners.id, runner.id));
    const request = { runnerId: runner.id, freeGpus: [51], requestId: 'back', waitSeconds: 0 };
    assert.ok(await commit(store, (tx) => claimJob(tx, store.runnerActor, request, leaseSeconds)));
  });
});

test('a gateway that stood still is not well until it has read what came meanwhile, for a whole lease', async () => {
  const troubles: unknown[] = [];
  const consumer = startConsumer(store, {
    leaseSeconds: 1,
    maxMetricNames: Infinity,
    report: (error) => troubles.push(error),
  });
  try {
    await until(consumer.isWell, { timeoutMs: 10_000, everyMs: 50, what: 'a gateway that is well' });
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3_000); // as by SIGSTOP
    assert.equal(consumer.isWell(), false);
    await sleep(500);
    assert.equal(consumer.isWell(), false, 'it read once');
    await until(consumer.isWell, { timeoutMs: 10_000, everyMs: 50, what: 'a gateway that is well again' });
  } finally {
    await consumer.stop();
  }
  assert.deepEqual(troubles, []);
});

suite('a claim', () => {
  test('that is repeated after a lost answer gets the same assignment', async () => {
    await newJob(store, { priority: 100 });
    const request = { runnerId: runner.id, freeGpus: [61], requestId: 'same', waitSeconds: 0 };
    const claimed = () => commit(store, (tx) => claimJob(tx, store.runnerActor, request, leaseSeconds));
    assert.deepEqual(await claimed(), await claimed());
  });

  test('that is repeated while the first is under way gets the same assignment', async () => {
    const { id } = await newRunner(store, 'impatient', 5);
    await Promise.all(Array.from({ length: 5 }, () => newJob(store, { priority: 100 })));
    const request = { runnerId: id, freeGpus: [0, 1, 2, 3, 4], requestId: 'again', waitSeconds: 0 };
    const claims = await Promise.all(
      Array.from({ length: 5 }, () => commit(store, (tx) => claimJob(tx, store.runnerActor, request, leaseSeconds))),
    );
    assert.ok(claims[0]);
    for (const claim of claims) assert.deepEqual(claim, claims[0]);
  });

  test('gets no GPU that another attempt holds, whatever the runner says', async () => {
    const request = (requestId: string) => ({ runnerId: runner.id, freeGpus: [61, 62], requestId, waitSeconds: 0 });
    await newJob(store, { priority: 100 });
    await newJob(store, { priority: 100 });
    const first = await commit(store, (tx) => claimJob(tx, store.runnerActor, request('gpu1'), leaseSeconds));
    const second = await commit(store, (tx) => claimJob(tx, store.runnerActor, request('gpu2'), leaseSeconds));
    assert.deepEqual([first?.gpus, second], [[62], null]);
  });

  test('of many at once gives each job to one', async () => {
    const many = await newRunner(store, 'crowd', 20);
    await Promise.all(Array.from({ length: 10 }, () => newJob(store, { priority: 99 })));
    const claims = await Promise.all(
      Array.from({ length: 20 }, (_, n) => {
        const request = { runnerId: many.id, freeGpus: [n], requestId: `crowd${n}`, waitSeconds: 0 };
        return commit(store, (tx) => claimJob(tx, store.runnerActor, request, leaseSeconds));
      }),
    );
    const jobs = claims.flatMap((to) => (to ? [to.job.id] : []));
    assert.equal(new Set(jobs).size, jobs.length);
    assert.ok(jobs.length >= 10);
  });
});
