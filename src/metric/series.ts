// Reduces a long line of points to few points for a chart; pure. Points come with x ascending, and
// a value that is not finite breaks the line. A line may have a million points, so every function
// is a generator that pauses between pieces.
import { piece, type Work } from './stepwise.ts';

export const downsamplings = ['LTTB', 'MIN_MAX', 'MEAN', 'NONE'] as const;
export type Downsampling = (typeof downsamplings)[number];

/**
 * Columns of a line. For points, `low` and `high` are the column `y` itself; for windows they are
 * the extremes of each window.
 */
export type Line = {
  x: ArrayLike<number>;
  y: ArrayLike<number>;
  low: ArrayLike<number>;
  high: ArrayLike<number>;
};

export type ReducedPoint = { x: number; y: number | null; low: number | null; high: number | null };

/** At most one in 10 points of a reduced line marks a gap. */
const gapShare = 10;

/**
 * Reduces a line to at most `maxPoints` points (`NONE`: to all its points), x ascending. y is null
 * where the line is broken.
 */
export function* reduceLine(line: Line, method: Downsampling, maxPoints: number): Work<ReducedPoint[]> {
  if (method === 'NONE') return Array.from(line.y, (_, index) => pointAt(line, index));
  const { finite, breaks } = yield* split(line);
  const gaps = evenly(breaks, Math.floor(maxPoints / gapShare)).map((index) => pointAt(line, index));
  const reduced = yield* reducers[method](line, finite, maxPoints - gaps.length);
  return [...reduced, ...gaps].sort((a, b) => a.x - b.x);
}

type Reduce = (line: Line, finite: Indexes, count: number) => Work<ReducedPoint[]>;
/** Indexes into the columns of a line, ascending. */
type Indexes = Uint32Array;

const reducers: Record<Exclude<Downsampling, 'NONE'>, Reduce> = {
  LTTB: reduceLttb,
  MIN_MAX: reduceMinMax,
  MEAN: reduceMean,
};

function pointAt({ x, y, low, high }: Line, index: number): ReducedPoint {
  const finiteOf = (column: ArrayLike<number>) => {
    const value = column[index] ?? NaN;
    return Number.isFinite(value) ? value : null;
  };
  return { x: x[index] ?? 0, y: finiteOf(y), low: finiteOf(low), high: finiteOf(high) };
}

function pointsAt(line: Line, indexes: ArrayLike<number>): ReducedPoint[] {
  return Array.from(indexes, (index) => pointAt(line, index));
}

/**
 * Splits a line into the indexes of its finite values, and the first index of each run of values
 * that are not finite.
 */
function* split({ y }: Line): Work<{ finite: Indexes; breaks: number[] }> {
  const finite = new Uint32Array(y.length);
  const breaks: number[] = [];
  let count = 0;
  let broken = false;
  for (let index = 0; index < y.length; index++) {
    if (index % piece === 0) yield;
    if (Number.isFinite(y[index])) {
      finite[count++] = index;
      broken = false;
    } else if (!broken) {
      breaks.push(index);
      broken = true;
    }
  }
  return { finite: finite.subarray(0, count), breaks };
}

/** Picks at most `count` of the items, spread evenly. */
function evenly<T>(items: readonly T[], count: number): T[] {
  if (items.length <= count) return [...items];
  const slot = (index: number) => Math.floor((index * count) / items.length);
  return items.filter((_, index) => slot(index) !== slot(index - 1));
}

/**
 * Largest-Triangle-Three-Buckets (Steinarsson 2013). It keeps the first and the last point. Of each
 * bucket between them it keeps the point that spans the largest triangle with the point kept before
 * and the mean of the next bucket.
 */
function* reduceLttb(line: Line, finite: Indexes, count: number): Work<ReducedPoint[]> {
  const { x, y } = line;
  const total = finite.length;
  if (total <= count) return pointsAt(line, finite);
  const valueOf = (column: ArrayLike<number>, place: number) => column[finite[place] ?? 0] ?? 0;
  const bucketSize = (total - 2) / (count - 2);
  const startOf = (bucket: number) => Math.min(total - 1, Math.floor(bucket * bucketSize) + 1);
  const picked = [finite[0] ?? 0];
  let before = 0;
  for (let bucket = 0; bucket < count - 2; bucket++) {
    yield;
    const [start, end, nextEnd] = [startOf(bucket), startOf(bucket + 1), Math.min(total, startOf(bucket + 2) + 1)];
    const size = Math.max(1, nextEnd - end);
    let [meanX, meanY] = [0, 0];
    for (let place = end; place < nextEnd; place++) {
      meanX += valueOf(x, place) / size;
      meanY += valueOf(y, place) / size;
    }
    const [fromX, fromY] = [valueOf(x, before), valueOf(y, before)];
    let [best, largest] = [start, -1];
    for (let place = start; place < end; place++) {
      const area = Math.abs(
        (fromX - meanX) * (valueOf(y, place) - fromY) - (fromX - valueOf(x, place)) * (meanY - fromY),
      );
      if (area > largest) [best, largest] = [place, area];
    }
    picked.push(finite[best] ?? 0);
    before = best;
  }
  picked.push(finite[total - 1] ?? 0);
  return pointsAt(line, picked);
}

/** Cuts indexes into at most `count` runs of about the same size. */
function* bucketsOf(finite: Indexes, count: number): Generator<Indexes> {
  const used = Math.min(count, finite.length);
  for (let n = 0; n < used; n++) {
    yield finite.subarray(Math.floor((n * finite.length) / used), Math.floor(((n + 1) * finite.length) / used));
  }
}

function* reduceMinMax(line: Line, finite: Indexes, count: number): Work<ReducedPoint[]> {
  if (finite.length <= count && line.low === line.high) return pointsAt(line, finite);
  const reduced: ReducedPoint[] = [];
  for (const bucket of bucketsOf(finite, Math.floor(count / 2))) {
    yield;
    const { lowest, highest } = extremes(line, bucket);
    const point = (index: number, value: number) => ({ x: line.x[index] ?? 0, y: value, low: value, high: value });
    const low = point(lowest, line.low[lowest] ?? 0);
    const high = point(highest, line.high[highest] ?? 0);
    if (lowest === highest && low.y === high.y) reduced.push(low);
    else reduced.push(...(lowest <= highest ? [low, high] : [high, low]));
  }
  return reduced;
}

function* reduceMean(line: Line, finite: Indexes, count: number): Work<ReducedPoint[]> {
  if (finite.length <= count) return pointsAt(line, finite);
  const reduced: ReducedPoint[] = [];
  for (const bucket of bucketsOf(finite, count)) {
    yield;
    const { lowest, highest } = extremes(line, bucket);
    let [x, y] = [0, 0];
    for (const index of bucket) {
      x += (line.x[index] ?? 0) / bucket.length;
      y += (line.y[index] ?? 0) / bucket.length;
    }
    const [low, high] = [line.low[lowest] ?? 0, line.high[highest] ?? 0];
    // Floating-point sums round: `within` keeps the mean and its x inside of the bucket.
    const within = (value: number, least: number, most: number) => Math.min(most, Math.max(least, value));
    const [first, last] = [line.x[bucket[0] ?? 0] ?? 0, line.x[bucket.at(-1) ?? 0] ?? 0];
    reduced.push({ x: within(x, first, last), y: within(y, low, high), low, high });
  }
  return reduced;
}

function extremes({ low, high }: Line, bucket: Indexes): { lowest: number; highest: number } {
  let lowest = bucket[0] ?? 0;
  let highest = lowest;
  for (const index of bucket) {
    if ((low[index] ?? 0) < (low[lowest] ?? 0)) lowest = index;
    if ((high[index] ?? 0) > (high[highest] ?? 0)) highest = index;
  }
  return { lowest, highest };
}
