// The columns of one series while it is read: points and windows go in, the reduced series for a
// chart comes out. Long work is cut into pieces, so that the event loop serves others in between.
import type { Attempt } from '../attempt/attempt.ts';
import { Refusal } from '../errors.ts';
import type { Window } from './merged.ts';
import { type Downsampling, type Line, reduceLine } from './series.ts';
import { piece, sortInPieces, type Work } from './stepwise.ts';
import type { StoredPoint } from './table.ts';
import { fromStored, meanOf } from './window.ts';

const maxNonFinite = 1_000;

/**
 * Consecutive points of one attempt in a collector: they begin at the index `from`. `low` and
 * `high` are the smallest and largest step.
 */
type Run = { attempt: number; from: number; low: number; high: number; nonFinite: number };

/**
 * Columns of one series while it is read; `step` is NaN for a point without one. Points share one
 * column for `y`, `low` and `high`; windows have three.
 */
export type Collector = {
  request: SeriesRequest;
  startOf: Map<number, number>;
  x: number[];
  y: number[];
  low: number[];
  high: number[];
  step: number[];
  runs: Run[];
  /** Points whose value is NaN or infinite, by their index in the columns. */
  nonFinite: Map<number, StoredPoint>;
};

/** Makes an empty collector for a series. */
export function newCollector(request: SeriesRequest, attempts: readonly Attempt[]): Collector {
  const startOf = new Map(attempts.map(({ number, startedAt }) => [number, startedAt?.getTime() ?? NaN]));
  const y: number[] = [];
  return { request, startOf, x: [], y, low: y, high: y, step: [], runs: [], nonFinite: new Map() };
}

/** x of a point on the requested axis; NaN when the point has none, e.g. a point without a step. */
function xOf({ request, startOf }: Collector, point: Omit<StoredPoint, 'value'>): number {
  switch (request.x) {
    case 'STEP':
      return point.step ?? NaN;
    case 'EPOCH':
      return point.epoch ?? NaN;
    case 'TIME':
      return point.time / 1000;
    case 'RELATIVE_TIME':
      return (point.time - (startOf.get(point.attempt) ?? NaN)) / 1000;
  }
}

/**
 * Extends the run of the point's attempt by its step. Returns the point's x, or null when the point
 * is outside of the requested attempt or range.
 */
function takeX(collector: Collector, point: Omit<StoredPoint, 'value'>): number | null {
  const { request, runs } = collector;
  if (request.attempt !== null && request.attempt !== point.attempt) return null;
  let run = runs.at(-1);
  if (run?.attempt !== point.attempt) {
    run = { attempt: point.attempt, from: collector.x.length, low: Infinity, high: -Infinity, nonFinite: 0 };
    runs.push(run);
  }
  if (point.step !== null) {
    run.low = Math.min(run.low, point.step);
    run.high = Math.max(run.high, point.step);
  }
  const x = xOf(collector, point);
  if (Number.isNaN(x) || x < (request.from ?? -Infinity) || x > (request.to ?? Infinity)) return null;
  return x;
}

export function addPoint(collector: Collector, point: StoredPoint): void {
  const x = takeX(collector, point);
  const run = collector.runs.at(-1);
  if (x === null || !run) return;
  const y = fromStored(point.value);
  // The bound holds for each attempt: only `finish` knows which of these points a later attempt
  // overwrites, and shows 1,000 of the rest.
  if (!Number.isFinite(y) && run.nonFinite++ < maxNonFinite) collector.nonFinite.set(collector.x.length, point);
  collector.x.push(x);
  collector.y.push(y);
  collector.step.push(point.step ?? NaN);
}

/** Adds a window as a point: its mean, at its last step or at its start. */
export function addWindow(collector: Collector, { attempt, start, state }: Window): void {
  const x = takeX(collector, { attempt, step: state.lastStep, epoch: null, time: start * 1000 });
  if (x === null) return;
  collector.x.push(x);
  collector.y.push(meanOf(state) ?? NaN);
  collector.low.push(state.min ?? NaN);
  collector.high.push(state.max ?? NaN);
  collector.step.push(state.lastStep ?? NaN);
}

/**
 * Makes the series from the collected points. A million points take a second, so it is a generator
 * that pauses between pieces.
 */
export function* finish(
  request: SeriesRequest,
  collector: Collector,
  windowSeconds: number | null,
): Work<Series | Refusal> {
  const order = yield* inOrder(collector);
  if (request.downsampling === 'NONE' && order.length > maxUnreduced) {
    const what = `The series has ${order.length} points; ${maxUnreduced} are the most without reduction.`;
    const hint = 'Pass another downsampling, or from and to.';
    return new Refusal('BAD_USER_INPUT', what, { path: ['downsampling'], hint });
  }
  const line = yield* lineOf(collector, order);
  const points = yield* reduceLine(line, request.downsampling, request.maxPoints);
  const isMean = request.downsampling === 'MEAN';
  return {
    x: points.map(({ x }) => x),
    y: points.map(({ y }) => y),
    yMin: isMean ? points.map(({ low }) => low) : null,
    yMax: isMean ? points.map(({ high }) => high) : null,
    nonFinite: yield* nonFiniteOf(collector, order),
    sourceCount: order.length,
    windowSeconds,
  };
}

/**
 * Indexes of the points that no later attempt overwrites, with x ascending; points with one x keep
 * their order. An attempt overwrites all points of earlier ones whose step lies in its range.
 */
function* inOrder({ x, step, runs }: Collector): Work<Uint32Array> {
  const kept = new Uint32Array(x.length);
  let count = 0;
  let ascending = true;
  for (const [n, { from }] of runs.entries()) {
    const later = runs.slice(n + 1);
    for (let index = from; index < (runs[n + 1]?.from ?? x.length); index++) {
      if (index % piece === 0) yield;
      const pointStep = step[index] ?? NaN;
      if (later.some(({ low, high }) => pointStep >= low && pointStep <= high)) continue;
      ascending &&= count === 0 || (x[index] ?? 0) >= (x[kept[count - 1] ?? 0] ?? 0);
      kept[count++] = index;
    }
  }
  const order = kept.subarray(0, count);
  return ascending ? order : yield* sortInPieces(order, (a, b) => (x[a] ?? 0) < (x[b] ?? 0));
}

function* lineOf({ x, y, low, high }: Collector, order: Uint32Array): Work<Line> {
  const line = { x: yield* pick(x, order), y: yield* pick(y, order) };
  if (low === y) return { ...line, low: line.y, high: line.y };
  return { ...line, low: yield* pick(low, order), high: yield* pick(high, order) };
}

function* pick(values: readonly number[], order: Uint32Array): Work<Float64Array> {
  // Float64Array.from() takes ten times as long for a million values.
  const picked = new Float64Array(order.length);
  for (let n = 0; n < order.length; n++) {
    if (n % piece === 0) yield;
    picked[n] = values[order[n] ?? 0] ?? NaN;
  }
  return picked;
}

function* nonFiniteOf({ nonFinite }: Collector, order: Uint32Array): Work<StoredPoint[]> {
  const points: StoredPoint[] = [];
  if (nonFinite.size === 0) return points;
  for (let n = 0; n < order.length; n++) {
    if (n % piece === 0) yield;
    const point = nonFinite.get(order[n] ?? 0);
    if (point) points.push(point);
  }
  return points.sort((a, b) => a.time - b.time).slice(0, maxNonFinite);
}
export const axes = ['STEP', 'EPOCH', 'TIME', 'RELATIVE_TIME'] as const;
export type Axis = (typeof axes)[number];

export type SeriesRequest = {
  name: string;
  x: Axis;
  from: number | null;
  to: number | null;
  maxPoints: number;
  downsampling: Downsampling;
  /** Only points of this attempt; null for all, where each overwrites the steps that it repeats. */
  attempt: number | null;
};

export type Series = {
  x: number[];
  y: (number | null)[];
  yMin: (number | null)[] | null;
  yMax: (number | null)[] | null;
  nonFinite: StoredPoint[];
  sourceCount: number;
  windowSeconds: number | null;
};
export const maxUnreduced = 50_000;
