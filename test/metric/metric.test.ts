// Windows: merging aggregates gives what adding all points to one gives, exactly but for quantiles.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { addValue, type Aggregate, aggregateOf, mergeAggregates, meanOf, quantileOf } from '../../src/metric/window.ts';

/** Dyadic numbers add up without rounding, in any order. */
const dyadic = fc.integer({ min: -(2 ** 20), max: 2 ** 20 }).map((n) => n / 1024);
const values = fc.array(dyadic, { minLength: 1, maxLength: 200 });
const merged = (points: readonly number[], firstStep = 0) =>
  points.map((value, n) => aggregateOf(value, firstStep + n)).reduce(mergeAggregates);

/** The value at a rank, as `quantileOf` defines it, from all values. */
function exact(points: readonly number[], quantile: number): number {
  const sorted = points.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(quantile * sorted.length) - 1)] ?? NaN;
}

suite('aggregates', () => {
  test('count, sum, min, max, first and last exactly', () => {
    fc.assert(
      fc.property(values, (points) => {
        const all = merged(points);
        assert.equal(all.count, points.length);
        assert.equal(
          all.sum,
          points.reduce((a, b) => a + b, 0),
        );
        assert.equal(all.min, Math.min(...points));
        assert.equal(all.max, Math.max(...points));
        assert.deepEqual([all.first, all.last], [points[0], points.at(-1)]);
        assert.deepEqual([all.firstStep, all.lastStep], [0, points.length - 1]);
        assert.equal(meanOf(all), points.reduce((a, b) => a + b, 0) / points.length);
      }),
    );
  });

  test('do not depend on how the points were cut into windows', () => {
    fc.assert(
      fc.property(values, fc.array(fc.nat(199)), (points, cuts) => {
        const borders = [...new Set([0, ...cuts.filter((cut) => cut < points.length), points.length])].sort(
          (a, b) => a - b,
        );
        const parts = borders.slice(1).map((end, n) => merged(points.slice(borders[n], end), borders[n]));
        assert.deepEqual(withSortedBuckets(parts.reduce(mergeAggregates)), withSortedBuckets(merged(points)));
      }),
    );
  });

  test('are the same whether a value is added in place or merged', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.double(), fc.option(fc.nat())), { minLength: 1 }), ([head, ...rest]) => {
        const added = aggregateOf(...(head ?? [0, null]));
        for (const point of rest) addValue(added, ...point);
        const all = [head ?? ([0, null] as [number, null]), ...rest]
          .map((point) => aggregateOf(...point))
          .reduce(mergeAggregates);
        assert.deepEqual(withSortedBuckets(added), withSortedBuckets(all));
      }),
    );
  });

  test('give quantiles within 1 % of the value at the rank', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(dyadic, fc.double({ min: 1e-9, max: 1e9, noNaN: true })), { minLength: 1, maxLength: 300 }),
        (points) => {
          const all = merged(points);
          for (const quantile of [0, 0.5, 0.95, 1]) {
            const [got, want] = [quantileOf(all, quantile), exact(points, quantile)];
            assert.ok(got !== null && Math.abs(got - want) <= Math.abs(want) * 0.01 + 1e-300, `${got} for ${want}`);
          }
        },
      ),
    );
  });

  test('count what is not finite apart, and say null where nothing is finite', () => {
    const none = merged([NaN, Infinity, -Infinity]);
    assert.deepEqual([none.count, none.nonFinite, none.min, none.max], [3, 3, null, null]);
    assert.deepEqual([meanOf(none), quantileOf(none, 0.5), none.first, none.last], [null, null, 'NaN', '-Infinity']);
    const some = merged([NaN, 2, Infinity, 4]);
    assert.deepEqual([some.count, some.nonFinite, some.sum, meanOf(some)], [4, 2, 6, 3]);
  });

  test('survive values at the edge of what a number holds, through JSON too', () => {
    const huge = merged([1e308, 1e308, -1e308, 5e-324, -0]);
    const back = JSON.parse(JSON.stringify(huge)) as Aggregate;
    assert.deepEqual([back.min, back.max, back.count], [-1e308, 1e308, 5]);
    assert.equal(meanOf(merged([1e308, 1e308])), null, 'their sum is beyond a number');
    fc.assert(
      fc.property(fc.array(fc.double(), { minLength: 1 }), (points) => {
        const all = merged(points);
        assert.equal(JSON.stringify(JSON.parse(JSON.stringify(all))), JSON.stringify(all));
        for (const quantile of [0, 0.5, 1]) {
          const got = quantileOf(all, quantile);
          assert.ok(got === null || Number.isFinite(got));
        }
      }),
    );
  });
});

function withSortedBuckets(aggregate: Aggregate) {
  const sorted = (buckets: Record<string, number>) => Object.entries(buckets).sort();
  return { ...aggregate, positive: sorted(aggregate.positive), negative: sorted(aggregate.negative) };
}
