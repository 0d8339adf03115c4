// Series of a job from its points, read chunk by chunk, or from its windows when the points are gone or too many. One
// scan of the chunks serves all series that an operation asks of a job: a chunk holds the points of all its metrics.
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
  /** Only this attempt; null for all, each of which overwrites the steps that it repeats. */
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

/** Points of a job, of all its metrics, up to which its series are read from points: a scan parses them all. */
export const maxPointsOfJob = 1_000_000;
const maxWindows = 20_000;
export const maxUnreduced = 50_000;
const maxNonFinite = 1_000;
/** Bytes of chunks that one query should bring, about. */
const bytesPerQuery = 1024 * 1024;
const pageOfWindows = 1_000;

export type SeriesSource = {
  job: Job;
  /** All of the job. */
  attempts: readonly Attempt[];
  retention: Retention;
  /** Ends a scan whose operation is over. */
  signal?: AbortSignal;
};

/** The series asked for, each or why there is none, in the same order. */
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
    // What is held at once is bounded by points, not by how many series are asked for.
    let held = 0;
    const first = rest.findIndex(({ name }) => (held += counts.get(name) ?? 0) > maxPointsOfJob);
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

/** Points of one attempt, from an index on, and the range of their steps. */
type Run = { attempt: number; from: number; low: number; high: number; nonFinite: number };

/** Columns of one series as it is read; `step` is NaN where there is none. */
export type Collector = {
  request: SeriesRequest;
  startOf: Map<number, number>;
  x: number[];
  y: number[];
  low: number[];
  high: number[];
  step: number[];
  runs: Run[];
  /** Points that are not finite, by index. */
  nonFinite: Map<number, StoredPoint>;
};

/** An empty collector of a series. */
export function newCollector(request: SeriesRequest, attempts: readonly Attempt[]): Collector {
  const startOf = new Map(attempts.map(({ number, startedAt }) => [number, startedAt?.getTime() ?? NaN]));
  const y: number[] = [];
  return { request, startOf, x: [], y, low: y, high: y, step: [], runs: [], nonFinite: new Map() };
}

/** Where a point lies on the axis; NaN when it has no place there. */
function placeOf({ request, startOf }: Collector, point: Omit<StoredPoint, 'value'>): number {
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

/** Notes the step in the attempt's run; gives the point's place, or null when it is not of the series. */
function takePlace(collector: Collector, point: Omit<StoredPoint, 'value'>): number | null {
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
  const x = placeOf(collector, point);
  if (Number.isNaN(x) || x < (request.from ?? -Infinity) || x > (request.to ?? Infinity)) return null;
  return x;
}

type StoredEntry = [name: string, value: StoredValue, step: number | null, epoch: number | null, time: number];

async function scanChunks(
  db: Db,
  { job, signal }: SeriesSource,
  wanted: Map<string, { collector: Collector }[]>,
): Promise<void> {
  let place: SQL | undefined;
  for (let take = 16; ;) {
    signal?.throwIfAborted();
    const chunks = await db
      .select()
      .from(metricChunk)
      .where(and(eq(metricChunk.jobId, job.id), place))
      .orderBy(asc(metricChunk.attempt), asc(metricChunk.first))
      .limit(take);
    let bytes = 0;
    for (const { attempt, body } of chunks) {
      const turn = giveWay();
      if (turn) await turn;
      bytes += body.length;
      for (const [name, value, step, epoch, time] of JSON.parse(body.toString()) as StoredEntry[]) {
        for (const { collector } of wanted.get(name) ?? []) addPoint(collector, { step, epoch, time, value, attempt });
      }
    }
    const last = chunks.at(-1);
    if (!last || chunks.length < take) return;
    place = sql`(${metricChunk.attempt}, ${metricChunk.first}) > (${last.attempt}::integer, ${last.first}::bigint)`;
    take = Math.min(4_096, Math.max(16, Math.floor((bytesPerQuery * chunks.length) / bytes)));
  }
}

function addPoint(collector: Collector, point: StoredPoint): void {
  const x = takePlace(collector, point);
  const run = collector.runs.at(-1);
  if (x === null || !run) return;
  const y = fromStored(point.value);
  // As many of each attempt as are shown of all: which of them a later attempt overwrites is known at the end.
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

/** A window as a point: its mean, at its last step or its start. */
function addWindow(collector: Collector, { attempt, start, state }: Window): void {
  const x = takePlace(collector, { attempt, step: state.lastStep, epoch: null, time: start * 1000 });
  if (x === null) return;
  collector.x.push(x);
  collector.y.push(meanOf(state) ?? NaN);
  collector.low.push(state.min ?? NaN);
  collector.high.push(state.max ?? NaN);
  collector.step.push(state.lastStep ?? NaN);
}

/** The series of what was collected; a million points take a second, so it is work in pieces. */
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

/** Indexes of the points that no later attempt overwrites, x ascending, else in the order of the reports. */
function* inOrder({ x, step, runs }: Collector): Work<Uint32Array> {
  const kept = new Uint32Array(x.length);
  let count = 0;
  let ascending = true;
  for (const [n, { from }] of runs.entries()) {
    const later = runs.slice(n + 1);
    for (let index = from; index < (runs[n + 1]?.from ?? x.length); index++) {
      if (index % piece === 0) yield;
      const at = step[index] ?? NaN;
      if (later.some(({ low, high }) => at >= low && at <= high)) continue;
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
  const picked = new Float64Array(order.length); // its from() takes ten times as long for a million
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
