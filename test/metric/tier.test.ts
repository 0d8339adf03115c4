// Tiers: what five minutes and an hour hold is what their points say, however it was merged.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { asc, eq } from 'drizzle-orm';
import fc from 'fast-check';
import { readJob } from '../../src/job/job.ts';
import { lengthsOf } from '../../src/metric/tier.ts';
import { metricTier } from '../../src/metric/table.ts';
import { listMerged, type Window } from '../../src/metric/merged.ts';
import { planByCount, planWindows } from '../../src/metric/window-plan.ts';
import { type Aggregate, aggregateOf, mergeAggregates, quantileOf } from '../../src/metric/window.ts';
import { addPoints, closeWindows, endJob, rollUpAll } from '../support/measure.ts';
import { newJob, openStore, type TestStore } from '../support/store.ts';

let store: TestStore;
before(async () => void (store = await openStore()));
after(() => store.close());

const retention = { metricRawDays: 30, metricWindowDays: 365 };
const start = 1_700_000_000 - (1_700_000_000 % 86_400);

async function windows(jobId: string, seconds: number | null, limit = 1_000): Promise<Window[]> {
  const { db } = store.database;
  const plan = await planWindows(db, (await readJob(db, jobId)).job, seconds, retention);
  return (await listMerged(db, plan, { name: 'm' }, { limit, backward: false })).windows;
}

const tierRows = (jobId: string) =>
  store.database.db
    .select()
    .from(metricTier)
    .where(eq(metricTier.jobId, jobId))
    .orderBy(asc(metricTier.seconds), asc(metricTier.start), asc(metricTier.attempt));

type Sample = { value: number; time: number; step: number };

/** What a window of a length holds, straight from the samples. */
function direct(samples: readonly Sample[], seconds: number): Map<number, { state: Aggregate; values: number[] }> {
  const found = new Map<number, { state: Aggregate; values: number[] }>();
  for (const { value, time, step } of samples) {
    const at = Math.floor(time / seconds) * seconds;
    const before = found.get(at);
    const added = aggregateOf(value, step);
    const state = before ? mergeAggregates(before.state, added) : added;
    found.set(at, { state, values: [...(before?.values ?? []), value] });
  }
  return found;
}

function exactPart({ count, sum, min, max, first, last, firstStep, lastStep, nonFinite, zeros }: Aggregate) {
  return { count, sum, min, max, first, last, firstStep, lastStep, nonFinite, zeros };
}

function assertSame(got: readonly Window[], samples: readonly Sample[], seconds: number): void {
  const want = direct(samples, seconds);
  assert.deepEqual(
    got.map((window) => [window.start, exactPart(window.state)]),
    [...want].sort(([a], [b]) => a - b).map(([at, { state }]) => [at, exactPart(state)]),
  );
  for (const window of got) {
    const sorted = (want.get(window.start)?.values ?? []).toSorted((a, b) => a - b);
    for (const quantile of [0.5, 0.95]) {
      const exact = sorted[Math.max(0, Math.ceil(quantile * sorted.length) - 1)] ?? NaN;
      const near = quantileOf(window.state, quantile) ?? NaN;
      assert.ok(Math.abs(near - exact) <= Math.abs(exact) * 0.01 + 1e-300, `${near} for ${exact}`);
    }
  }
}

suite('tiers', () => {
  test('equal what the points of an hour say, exactly but for quantiles, rolled up or not', async () => {
    const dyadic = fc.integer({ min: -(2 ** 20), max: 2 ** 20 }).map((n) => n / 1024);
    const sample = fc.record({ value: dyadic, pauseMs: fc.integer({ min: 0, max: 120_000 }) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(sample, { minLength: 1, maxLength: 150 }),
        fc.constantFrom(30, 45, 60, 300),
        fc.integer({ min: 1, max: 50 }),
        async (pauses, base, perBatch) => {
          const { id } = await newJob(store, { metrics: { window_seconds: base } });
          let time = start + 7;
          const samples = pauses.map(({ value, pauseMs }, step) => ({ value, step, time: (time += pauseMs / 1000) }));
          for (let n = 0; n < samples.length; n += perBatch) {
            await addPoints(store, id, samples.slice(n, n + perBatch));
            if (n % 2 === 1) await rollUpAll(store, 7);
          }
          for (const length of [...lengthsOf(base), 4 * base]) assertSame(await windows(id, length), samples, length);
          await closeWindows(store, id);
          await rollUpAll(store, 7);
          for (const length of [...lengthsOf(base), 7_200]) assertSame(await windows(id, length), samples, length);
          for (const length of lengthsOf(base).slice(1)) {
            const rows = (await tierRows(id)).filter(({ seconds }) => seconds === length);
            assert.equal(rows.length, direct(samples, length).size, 'each tier window is stored');
          }
        },
      ),
      { numRuns: 12 },
    );
  });

  test('are those that the job’s own windows fill evenly', () => {
    assert.deepEqual(lengthsOf(30), [30, 300, 3_600]);
    assert.deepEqual(lengthsOf(45), [45, 3_600]);
    assert.deepEqual(lengthsOf(7), [7]);
    assert.deepEqual(lengthsOf(600), [600, 3_600]);
    assert.deepEqual(lengthsOf(3_600), [3_600]);
  });

  test('keep a spike in the maximum of every length', async () => {
    const { id } = await newJob(store);
    const points = Array.from({ length: 700 }, (_, n) => ({ value: n === 333 ? 1e9 : 1, time: start + n * 15 }));
    await addPoints(store, id, points);
    await closeWindows(store, id);
    await rollUpAll(store);
    for (const seconds of [30, 300, 3_600, 86_400]) {
      const highest = Math.max(...(await windows(id, seconds)).map(({ state }) => state.max ?? NaN));
      assert.equal(highest, 1e9, `${seconds} s`);
    }
  });

  test('are stored once when several gateways roll up at once', async () => {
    const { id } = await newJob(store);
    const samples = Array.from({ length: 600 }, (_, n) => ({ value: n, time: start + n * 20, step: n }));
    await addPoints(store, id, samples);
    await closeWindows(store, id);
    await Promise.all([5, 11, 17, 23].map((limit) => rollUpAll(store, limit)));
    while ((await rollUpAll(store)) > 0);
    assertSame(await windows(id, 300), samples, 300);
    assertSame(await windows(id, 3_600), samples, 3_600);
    const rows = await tierRows(id);
    assert.deepEqual(
      rows.map(({ seconds, start: at }) => [seconds, at]),
      [300, 3_600].flatMap((seconds) => [...direct(samples, seconds).keys()].map((at) => [seconds, at])),
    );
    await rollUpAll(store);
    assert.deepEqual(await tierRows(id), rows, 'again is the same as once');
  });

  test('reflect a point that comes after the roll-up, at once and after the next', async () => {
    const { id } = await newJob(store);
    const samples: Sample[] = Array.from({ length: 100 }, (_, n) => ({ value: n, time: start + n * 10, step: n }));
    await addPoints(store, id, samples);
    await rollUpAll(store);
    const before = (await windows(id, 300))[0];
    await addPoints(store, id, [{ value: -5_000, time: start + 31 }]);
    const between = (await windows(id, 300))[0];
    assert.deepEqual([between?.state.min, between?.state.count], [-5_000, 31]);
    assert.equal((await tierRows(id))[0]?.state.min, 0, 'the tier itself lags');
    assert.ok((between?.revision ?? 0) > (before?.revision ?? 0));
    await rollUpAll(store);
    assert.deepEqual((await windows(id, 300))[0], between);
    assert.deepEqual((await tierRows(id)).map(({ state }) => state.min).slice(0, 2), [-5_000, 300 / 10]);
    assert.equal((await windows(id, 3_600))[0]?.state.min, -5_000);
  });

  test('close when their whole time is over, not when what they hold is', async () => {
    const { id } = await newJob(store);
    await addPoints(store, id, [{ value: 1, time: start }]);
    await addPoints(store, id, [{ name: 'other', value: 1, time: start + 200 }]);
    const [own, wide] = [(await windows(id, 30))[0], (await windows(id, 300))[0]];
    assert.deepEqual([own?.closed, wide?.closed], [true, false]);
    await addPoints(store, id, [{ name: 'other', value: 1, time: start + 290 }]);
    await addPoints(store, id, [{ name: 'other', value: 1, time: start + 400 }]);
    const closed = (await windows(id, 300))[0];
    assert.equal(closed?.closed, true);
    assert.ok((closed?.revision ?? 0) > (wide?.revision ?? 0), 'closing is a revision');
  });

  test('close with the job, and hold each attempt apart', async () => {
    const { id } = await newJob(store);
    await addPoints(store, id, [{ value: 1, time: start }]);
    await closeWindows(store, id);
    await addPoints(store, id, [{ value: 2, time: start + 40 }], 2);
    assert.deepEqual(
      (await windows(id, 300)).map(({ attempt, state, closed }) => [attempt, state.sum, closed]),
      [
        [1, 1, false],
        [2, 2, false],
      ],
    );
    await endJob(store, id);
    assert.deepEqual(
      (await windows(id, 300)).map(({ closed }) => closed),
      [true, true],
    );
  });

  test('are picked by how many windows one wants, finest first', async () => {
    const { id } = await newJob(store);
    const points = Array.from({ length: 480 }, (_, n) => ({ value: n, time: start + n * 30 })); // four hours
    await addPoints(store, id, points);
    await closeWindows(store, id);
    await rollUpAll(store);
    const { db } = store.database;
    const { job } = await readJob(db, id);
    const pick = async (max: number, range = {}) =>
      (await planByCount(db, job, { name: 'm', ...range }, max, retention)).seconds;
    assert.deepEqual(await Promise.all([480, 479, 48, 47, 4].map((max) => pick(max))), [30, 300, 300, 3_600, 3_600]);
    assert.deepEqual(await Promise.all([3, 2, 1].map((max) => pick(max))), [7_200, 7_200, 14_400]);
    assert.equal(await pick(20, { since: new Date((start + 13_800) * 1000) }), 30, 'of a short range');
  });

  test('are read in pages of any size, in either direction', async () => {
    const { id } = await newJob(store);
    const points = Array.from({ length: 300 }, (_, n) => ({ value: n, time: start + n * 30 }));
    for (const attempt of [1, 2]) await addPoints(store, id, points, attempt);
    await rollUpAll(store);
    const { db } = store.database;
    const plan = await planWindows(db, (await readJob(db, id)).job, 600, retention);
    const all = await windows(id, 600);
    const [forward, back]: [Window[], Window[]] = [[], []];
    for (let place: number[] | undefined; ;) {
      const page = await listMerged(db, plan, { name: 'm' }, { limit: 7, backward: false, after: place });
      forward.push(...page.windows.slice(0, 7));
      if (page.windows.length <= 7) break;
      place = [forward.at(-1)?.start ?? 0, forward.at(-1)?.attempt ?? 0];
    }
    for (let place: number[] | undefined; ;) {
      const page = await listMerged(db, plan, { name: 'm' }, { limit: 7, backward: true, before: place });
      back.unshift(...page.windows.slice(-7));
      if (page.windows.length <= 7) break;
      place = [back[0]?.start ?? 0, back[0]?.attempt ?? 0];
    }
    assert.equal(all.length, 30);
    assert.deepEqual(forward, all);
    assert.deepEqual(back, all);
  });

  test('refuse a length that is no multiple of the job’s own', async () => {
    const { id } = await newJob(store);
    for (const seconds of [45, 0, -30, 29])
      await assert.rejects(windows(id, seconds), /multiple of 30|merged from them/);
    await assert.rejects(windows(id, 3_600 * 10_001), /goes up to/);
  });
});
