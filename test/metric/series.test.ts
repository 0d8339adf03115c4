// Series: a long line reduced for a chart keeps what a chart is for, and a job's points are read as they were reported.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import fc from 'fast-check';
import type { Attempt } from '../../src/attempt/attempt.ts';
import { Refusal } from '../../src/errors.ts';
import { readJob } from '../../src/job/job.ts';
import { readSeries } from '../../src/metric/points.ts';
import { type Series, type SeriesRequest } from '../../src/metric/collector.ts';
import { finish, newCollector } from '../../src/metric/collector.ts';
import { type Downsampling, downsamplings, type Line, reduceLine } from '../../src/metric/series.ts';
import { finishInTurns, finishNow, sortInPieces } from '../../src/metric/stepwise.ts';
import { addPoints, endJob, rollUpAll } from '../support/measure.ts';
import { newJob, openStore, type TestStore } from '../support/store.ts';

function lineOf(values: readonly number[]): Line {
  const y = Float64Array.from(values);
  return { x: Float64Array.from(values, (_, n) => n), y, low: y, high: y };
}

const finite = fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), { maxLength: 400 });
const any = fc.array(fc.oneof({ weight: 4, arbitrary: fc.double() }, { weight: 1, arbitrary: fc.constant(NaN) }), {
  maxLength: 400,
});
const maxPoints = fc.integer({ min: 10, max: 60 });
const reducing = downsamplings.filter((method) => method !== 'NONE');

suite('a line', () => {
  for (const method of reducing) {
    test(`reduced by ${method} has at most so many points, x ascending, each from the line`, () => {
      fc.assert(
        fc.property(any, maxPoints, (values, max) => {
          const points = finishNow(reduceLine(lineOf(values), method, max));
          assert.ok(points.length <= max, `${points.length} of ${max}`);
          for (const [n, { x, y }] of points.entries()) {
            assert.ok(x >= (points[n - 1]?.x ?? 0) && x < Math.max(1, values.length));
            assert.ok(y === null || Number.isFinite(y));
            if (method !== 'MEAN' && y !== null) assert.equal(y, values[x]);
          }
          assert.equal(
            points.some(({ y }) => y === null),
            values.some((value) => !Number.isFinite(value)),
          );
        }),
      );
    });
  }

  test('reduced by LTTB keeps its first and last point, and all of them when they are few', () => {
    fc.assert(
      fc.property(finite, maxPoints, (values, max) => {
        const points = finishNow(reduceLine(lineOf(values), 'LTTB', max));
        assert.equal(points.length, Math.min(max, values.length));
        assert.deepEqual([points[0]?.y, points.at(-1)?.y], [values[0], values.at(-1)]);
        assert.equal(new Set(points.map(({ x }) => x)).size, points.length);
      }),
    );
  });

  test('reduced by MIN_MAX keeps its smallest and largest value', () => {
    fc.assert(
      fc.property(finite, maxPoints, (values, max) => {
        const kept = finishNow(reduceLine(lineOf(values), 'MIN_MAX', max)).map(({ y }) => y ?? NaN);
        assert.equal(Math.min(...kept), Math.min(...values));
        assert.equal(Math.max(...kept), Math.max(...values));
      }),
    );
  });

  test('reduced by MEAN lies within its bands, and they hold every value', () => {
    fc.assert(
      fc.property(finite, maxPoints, (values, max) => {
        const points = finishNow(reduceLine(lineOf(values), 'MEAN', max));
        const used = Math.min(max, values.length);
        for (const [n, { y, low, high }] of points.entries()) {
          assert.ok(y !== null && low !== null && high !== null && y >= low && y <= high);
          const [from, to] = [Math.floor((n * values.length) / used), Math.floor(((n + 1) * values.length) / used)];
          for (const value of values.slice(from, to)) assert.ok(value >= low && value <= high);
        }
      }),
    );
  });

  test('of windows keeps their extremes by MIN_MAX and MEAN', () => {
    const window = { x: [0, 1, 2], y: [1, 1, 1], low: [0, -9, 0], high: [2, 2, 50] };
    const spikes = finishNow(reduceLine(window, 'MIN_MAX', 10)).map(({ y }) => y);
    assert.ok(spikes.includes(-9) && spikes.includes(50));
    assert.deepEqual(
      finishNow(reduceLine(window, 'MEAN', 10)).map(({ low, high }) => [low, high]),
      [
        [0, 2],
        [-9, 2],
        [0, 50],
      ],
    );
  });

  test('that is not reduced says null for each value that is not finite', () => {
    const points = finishNow(reduceLine(lineOf([1, NaN, Infinity, 2]), 'NONE', 10));
    assert.deepEqual(
      points.map(({ y }) => y),
      [1, null, null, 2],
    );
  });
});

suite('a million points', () => {
  const count = 1_000_000;
  for (const method of reducing) {
    test(`in no order, reduced by ${method}, let others have their turn`, async (context) => {
      const request = { name: 'm', x: 'STEP' as const, from: null, to: null, maxPoints: 500, attempt: null };
      const collector = newCollector({ ...request, downsampling: method }, []);
      for (let n = 0; n < count; n++) {
        const x = (n * 7_919) % count; // each once
        collector.x.push(x);
        collector.step.push(x);
        collector.y.push(Math.sin(x / 1e5));
      }
      collector.runs.push({ attempt: 1, from: 0, low: 0, high: count, nonFinite: 0 });
      let [turns, longest, since] = [0, 0, performance.now()];
      const timer = setInterval(() => {
        turns++;
        longest = Math.max(longest, performance.now() - since);
        since = performance.now();
      }, 1);
      const begin = performance.now();
      const series = await finishInTurns(finish({ ...request, downsampling: method }, collector, null));
      clearInterval(timer);
      const ms = Math.round(performance.now() - begin);
      context.diagnostic(`${method}: ${ms} ms, ${turns} turns of others, the longest pause ${Math.round(longest)} ms`);
      assert.ok(!(series instanceof Refusal) && series.sourceCount === count);
      assert.ok(series.x.every((x, n) => x >= (series.x[n - 1] ?? 0)));
      assert.ok(turns >= 5, `${turns} turns in ${ms} ms`);
    });
  }

  test('are sorted as sort() does, equal ones in their order', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(50), { maxLength: 200 }), fc.integer({ min: 1, max: 400 }), (few, times) => {
        const keys = Array.from({ length: times }, () => few).flat();
        const places = Uint32Array.from(keys.keys());
        const sorted = finishNow(sortInPieces(places.slice(), (a, b) => (keys[a] ?? 0) < (keys[b] ?? 0)));
        const expected = Array.from(places).sort((a, b) => (keys[a] ?? 0) - (keys[b] ?? 0));
        assert.deepEqual(sorted, Uint32Array.from(expected));
      }),
      { numRuns: 30 },
    );
  });

  test('are given up when nobody waits for them any more', async () => {
    const items = Uint32Array.from({ length: count }, (_, n) => count - n);
    const ending = new AbortController();
    setImmediate(() => ending.abort());
    await assert.rejects(
      finishInTurns(
        sortInPieces(items, (a, b) => a < b),
        ending.signal,
      ),
      { name: 'AbortError' },
    );
  });
});

suite('a series', () => {
  let store: TestStore;
  before(async () => void (store = await openStore()));
  after(() => store.close());

  const start = 1_700_000_000;
  const retention = { metricRawDays: 30, metricWindowDays: 365 };
  const attempts = [1, 2].map((number) => ({ number, startedAt: new Date((start + number * 1_000) * 1000) }));

  async function read(jobId: string, request: Partial<SeriesRequest> = {}): Promise<Series> {
    const { db } = store.database;
    const { job } = await readJob(db, jobId);
    const all = { name: 'm', x: 'STEP' as const, from: null, to: null, maxPoints: 500, attempt: null };
    const downsampling: Downsampling = 'NONE';
    const source = { job, attempts: attempts as unknown as Attempt[], retention };
    const [series] = await readSeries(db, source, [{ ...all, downsampling, ...request }]);
    if (series instanceof Refusal) throw series;
    assert.ok(series);
    return series;
  }

  const at = (step: number, value: number, offset = step) => ({ step, value, epoch: step / 10, time: start + offset });

  test('has a place on each axis', async () => {
    const { id } = await newJob(store);
    await addPoints(store, id, [at(10, 1, 1_005), at(20, 2, 1_010)]);
    await addPoints(store, id, [{ value: 3, time: start + 1_020 }]);
    const xs = async (x: SeriesRequest['x']) => (await read(id, { x })).x;
    assert.deepEqual(await xs('STEP'), [10, 20], 'a point without a step has none there');
    assert.deepEqual(await xs('EPOCH'), [1, 2]);
    assert.deepEqual(await xs('TIME'), [start + 1_005, start + 1_010, start + 1_020]);
    assert.deepEqual(await xs('RELATIVE_TIME'), [5, 10, 20]);
    const cut = await read(id, { from: 11, to: 20 });
    assert.deepEqual([cut.x, cut.sourceCount, cut.windowSeconds], [[20], 1, null]);
  });

  test('lets each attempt overwrite the steps that it repeats', async () => {
    const { id } = await newJob(store);
    await addPoints(store, id, [at(10, 1), at(20, 1), at(30, NaN), at(40, 1), at(50, 1)]);
    await addPoints(store, id, [at(25, 2, 1_000), at(35, 2, 1_001), at(40, 2, 1_002)], 2);
    const all = await read(id);
    assert.deepEqual(all.x, [10, 20, 25, 35, 40, 50]);
    assert.deepEqual(all.y, [1, 1, 2, 2, 2, 1]);
    assert.deepEqual(all.nonFinite, [], 'what was repeated is gone');
    const first = await read(id, { attempt: 1 });
    assert.deepEqual(first.y, [1, 1, null, 1, 1]);
    assert.deepEqual(
      first.nonFinite.map(({ step, value }) => [step, value]),
      [[30, 'NaN']],
    );
    assert.deepEqual((await read(id, { attempt: 3 })).x, []);
  });

  test('names at most 1000 values that are not finite, the oldest first', async () => {
    const { id } = await newJob(store);
    const points = Array.from({ length: 1_500 }, (_, n) => at(n, n % 2 ? NaN : -Infinity));
    await addPoints(store, id, points);
    const { nonFinite, sourceCount, y } = await read(id, { downsampling: 'LTTB' });
    assert.deepEqual([nonFinite.length, nonFinite[0]?.step, sourceCount], [1_000, 0, 1_500]);
    assert.deepEqual(y, [null]);
  });

  test('without reduction is refused beyond 50,000 points', async () => {
    const { id } = await newJob(store);
    for (let n = 0; n < 50_001; n += 10_000) {
      await addPoints(
        store,
        id,
        Array.from({ length: Math.min(10_000, 50_001 - n) }, (_, i) => at(n + i, 1)),
      );
    }
    await assert.rejects(read(id), /50001 points; 50000 are the most/);
    assert.equal((await read(id, { to: 49_999 })).y.length, 50_000);
    assert.equal((await read(id, { downsampling: 'LTTB', maxPoints: 100 })).y.length, 100);
  });

  test('comes from windows when its points are past retention, and says so', async () => {
    const { id } = await newJob(store);
    await addPoints(
      store,
      id,
      Array.from({ length: 100 }, (_, n) => at(n, n === 50 ? 1e6 : 1, n * 10)),
    );
    await endJob(store, id, 31);
    await rollUpAll(store);
    const series = await read(id, { downsampling: 'MEAN' });
    assert.equal(series.windowSeconds, 300);
    assert.ok(series.x.length >= 4 && series.x.length <= 5);
    assert.equal(Math.max(...(series.yMax ?? []).map(Number)), 1e6);
    assert.ok((await read(id, { downsampling: 'MIN_MAX' })).y.includes(1e6));
    await assert.rejects(read(id, { x: 'EPOCH' }), /hold no epochs/);
  });
});
