// Series for charts, from the points of a job, or from its windows when the points are gone or too
// many. A chunk holds points of all metrics of the job, so one scan of the chunks serves all series
// that an operation asks of a job.
import { and, asc, eq, type SQL, sql } from 'drizzle-orm';
import type { Attempt } from '../attempt/attempt.ts';
import type { Db } from '../database/database.ts';
import { Refusal } from '../errors.ts';
import type { Job } from '../job/job.ts';
import { giveWay } from '../turns.ts';
import { countPoints } from './metric.ts';
import { holdsPoints, type Retention } from './retention.ts';
import { type Downsampling, type Line, reduceLine } from './series.ts';
import { metricChunk, type StoredPoint } from './table.ts';
import { listMerged, planByCount, type Window } from './merged.ts';
import { finishInTurns, piece, sortInPieces, type Work } from './stepwise.ts';
import { fromStored, meanOf, type StoredValue } from './window.ts';

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

/**
 * Upper bound of the points of a job, over all its metrics. A job with more gets its series from
 * windows, since a scan parses every point.
 */
export const maxPointsOfJob = 1_000_000;
const maxWindows = 20_000;
export const maxUnreduced = 50_000;
const maxNonFinite = 1_000;
/** Approximate bytes of chunks that one query should bring. */
const bytesPerQuery = 1024 * 1024;
const pageOfWindows = 1_000;

export type SeriesSource = {
  job: Job;
  /** All attempts of the job. */
  attempts: readonly Attempt[];
  retention: Retention;
  /** Aborts the scan when its operation is over. */
  signal?: AbortSignal;
};

/**
 * Reads the requested series, in the same order. A Refusal in the place of a series says why it
 * cannot be read.
 */
export async function readSeries(
  db: Db,
  source: SeriesSource,
  requests: readonly SeriesRequest[],
): Promise<(Series | Refusal)[]> {
  const { total, counts } = await countPoints(
    db,
    source.job.id,
    requests.map(({ name }) => name),
  );
  const fromPoints = total <= maxPointsOfJob && (await holdsPoints(db, source.job, source.retention));
  const series = new Map<SeriesRequest, Series | Refusal>();
  if (!fromPoints) {
    for (const request of requests) series.set(request, await fromWindows(db, source, request));
  }
  for (let rest = fromPoints ? [...requests] : []; rest.length > 0;) {
    // A scan collects series with at most `maxPointsOfJob` points together, however many series are
    // requested.
    let points = 0;
    const first = rest.findIndex(({ name }) => (points += counts.get(name) ?? 0) > maxPointsOfJob);
    const now = rest.splice(0, first === -1 ? rest.length : Math.max(1, first));
    const collectors = now.map((request) => ({ request, collector: newCollector(request, source.attempts) }));
    await scanChunks(
      db,
      source,
      Map.groupBy(collectors, ({ request }) => request.name),
    );
    for (const { request, collector } of collectors) {
      series.set(request, await finishInTurns(finish(request, collector, null), source.signal));
    }
  }
  return requests.map((request) => series.get(request) ?? emptySeries());
}

function emptySeries(): Series {
  return { x: [], y: [], yMin: null, yMax: null, nonFinite: [], sourceCount: 0, windowSeconds: null };
}

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

type StoredEntry = [name: string, value: StoredValue, step: number | null, epoch: number | null, time: number];

async function scanChunks(
  db: Db,
  { job, signal }: SeriesSource,
  collectors: Map<string, { collector: Collector }[]>,
): Promise<void> {
  let after: SQL | undefined;
  for (let limit = 16; ;) {
    signal?.throwIfAborted();
    const chunks = await db
      .select()
      .from(metricChunk)
      .where(and(eq(metricChunk.jobId, job.id), after))
      .orderBy(asc(metricChunk.attempt), asc(metricChunk.first))
      .limit(limit);
    let bytes = 0;
    for (const { attempt, body } of chunks) {
      const turn = giveWay();
      if (turn) await turn;
      bytes += body.length;
      for (const [name, value, step, epoch, time] of JSON.parse(body.toString()) as StoredEntry[]) {
        for (const { collector } of collectors.get(name) ?? [])
          addPoint(collector, { step, epoch, time, value, attempt });
      }
    }
    const last = chunks.at(-1);
    if (!last || chunks.length < limit) return;
    after = sql`(${metricChunk.attempt}, ${metricChunk.first}) > (${last.attempt}::integer, ${last.first}::bigint)`;
    limit = Math.min(4_096, Math.max(16, Math.floor((bytesPerQuery * chunks.length) / bytes)));
  }
}

function addPoint(collector: Collector, point: StoredPoint): void {
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

async function fromWindows(db: Db, source: SeriesSource, request: SeriesRequest): Promise<Series | Refusal> {
  const { job, attempts, retention } = source;
  if (request.x === 'EPOCH') {
    return new Refusal('BAD_USER_INPUT', 'x is EPOCH; of this series only windows can be read, which hold no epochs.', {
      path: ['x'],
      hint: 'Pass STEP, TIME or RELATIVE_TIME.',
    });
  }
  const range = { name: request.name };
  const plan = await planByCount(db, job, range, maxWindows, retention);
  const collector: Collector = { ...newCollector(request, attempts), low: [], high: [] };
  for (let after: number[] | undefined; ;) {
    source.signal?.throwIfAborted();
    const { windows, limit } = await listMerged(db, plan, range, { limit: pageOfWindows, backward: false, after });
    for (const window of windows.slice(0, limit)) addWindow(collector, window);
    const last = windows[limit - 1];
    if (!last || windows.length <= limit) break;
    after = [last.start, last.attempt];
  }
  return finishInTurns(finish(request, collector, plan.seconds), source.signal);
}

/** Adds a window as a point: its mean, at its last step or at its start. */
function addWindow(collector: Collector, { attempt, start, state }: Window): void {
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
