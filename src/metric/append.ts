// Stores the points of a batch and merges them into summaries and windows, all in the transaction
// of the batch, so that a batch that comes twice is counted once. Each change of a window, its
// closing included, takes the job's next change number and raises the window's revision. A batch
// may name 20,000 metrics or 40,000 windows: their rows are read and written in slices.
import { and, eq, lt, not, type SQL, sql } from 'drizzle-orm';
import { insertRows, isOneOf } from '../database/rows.ts';
import type { LockedJob } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import { appendLog } from '../log/append.ts';
import { type Metric, windowSecondsOf } from './metric.ts';
import { metric, metricChunk, metricWindow, type StoredPoint } from './table.ts';
import { readOwn, textOf, type WindowKey } from './tier.ts';
import { addValue, type Aggregate, aggregateOf, fromStored, mergeAggregates, toStored } from './window.ts';

export type NewPoint = {
  name: string;
  value: number;
  step: number | null;
  epoch: number | null;
  /** Milliseconds since the Unix epoch. */
  time: number;
};

/**
 * Rows that one statement reads or writes. Reading 1,000 and making them into text takes about 25
 * ms, during which the process serves nobody.
 */
const rowsPerSlice = 1_000;

/**
 * Stores points of an attempt, in order, and merges them into its windows. Then it closes the
 * windows of the job whose end lies more than one window length before the newest point. `first` is
 * the number of the first record of the batch. A job keeps the first `maxNames` metric names that
 * came, or fewer where its spec says so; points of further names are dropped, and a line of the log
 * says so once.
 */
export async function appendPoints(
  tx: Tx,
  locked: LockedJob,
  attempt: number,
  first: number,
  points: readonly NewPoint[],
  maxNames = Infinity,
): Promise<void> {
  const limit = nameLimitOf(locked, maxNames);
  const { kept, refused } = await mergeSummaries(tx, locked, attempt, points, limit.names);
  if (kept.length > 0) {
    await tx.insert(metricChunk).values({ jobId: locked.job.id, attempt, first, body: toBody(kept) });
    const seconds = windowSecondsOf(locked);
    await mergeWindows(tx, locked, attempt, seconds, kept);
    const newest = kept.reduce((latest, { time }) => Math.max(latest, time), 0) / 1000;
    await closeWindows(tx, locked, lt(metricWindow.start, Math.floor(newest) - 2 * seconds));
  }
  if (refused === null || locked.stream.metricRefused) return;
  locked.stream.metricRefused = true;
  const text = `Metric "${refused}" is not stored, nor is any further name: ${limit.reason}`;
  await appendLog(tx, locked, attempt, [{ time: Date.now(), stream: 'SYSTEM', text }]);
}

/**
 * The number of metric names that a job may have, with a sentence that says which setting allows
 * more.
 */
function nameLimitOf({ job }: LockedJob, maxNames: number): { names: number; reason: string } {
  const { max_names: limitOfSpec = Infinity } = job.effective.metrics;
  const reason =
    limitOfSpec < maxNames
      ? `metrics.max_names allows ${limitOfSpec} of a job. Raise it in the job spec, or in the policy of the project.`
      : `${maxNames} of a job are the most here. Whoever runs the gateway can raise ASTRAML_MAX_METRIC_NAMES.`;
  return { names: Math.min(limitOfSpec, maxNames), reason };
}

function toBody(points: readonly NewPoint[]): Buffer {
  const entries = points.map(({ name, value, step, epoch, time }) => [name, toStored(value), step, epoch, time]);
  return Buffer.from(JSON.stringify(entries));
}

/**
 * `kept`: the points whose names the job may have. `refused`: the first name beyond its limit, or
 * null.
 */
type Admitted = { kept: readonly NewPoint[]; refused: string | null };

async function mergeSummaries(
  tx: Tx,
  locked: LockedJob,
  attempt: number,
  points: readonly NewPoint[],
  maxNames: number,
): Promise<Admitted> {
  const jobId = locked.job.id;
  const byName = Map.groupBy(points, ({ name }) => name);
  const refused = new Set<string>();
  for (const names of slices([...byName.keys()])) {
    const rows = await tx
      .select()
      .from(metric)
      .where(and(eq(metric.jobId, jobId), isOneOf(metric.name, names)));
    const summaries = new Map(rows.map((row) => [row.name, row]));
    for (const name of names) {
      if (!summaries.has(name) && locked.stream.metricNames >= maxNames) {
        refused.add(name);
        continue;
      }
      if (!summaries.has(name)) locked.stream.metricNames++;
      for (const point of byName.get(name) ?? []) {
        summaries.set(name, withPoint(summaries.get(name), jobId, attempt, point));
      }
    }
    if (summaries.size === 0) continue;
    await tx.execute(sql`${insertRows(metric, [...summaries.values()])} on conflict (job_id, name) do update
      set count = excluded.count, last = excluded.last, min = excluded.min, max = excluded.max`);
  }
  const [first = null] = refused;
  return { kept: first === null ? points : points.filter(({ name }) => !refused.has(name)), refused: first };
}

function withPoint(before: Metric | undefined, jobId: string, attempt: number, point: NewPoint): Metric {
  const { name, value, step, epoch, time } = point;
  const last: StoredPoint = { step, epoch, time, value: toStored(value), attempt };
  const finite = Number.isFinite(value);
  return {
    jobId,
    name,
    count: (before?.count ?? 0) + 1,
    last,
    min: finite && (!before?.min || value < fromStored(before.min.value)) ? last : (before?.min ?? null),
    max: finite && (!before?.max || value > fromStored(before.max.value)) ? last : (before?.max ?? null),
  };
}

function* slices<Item>(items: readonly Item[]): Iterable<Item[]> {
  for (let start = 0; start < items.length; start += rowsPerSlice) yield items.slice(start, start + rowsPerSlice);
}

async function mergeWindows(
  tx: Tx,
  locked: LockedJob,
  attempt: number,
  seconds: number,
  points: readonly NewPoint[],
): Promise<void> {
  const jobId = locked.job.id;
  const touched = new Map<string, WindowKey & { state: Aggregate }>();
  for (const { name, value, step, time } of points) {
    const key = { name, attempt, start: Math.floor(time / 1000 / seconds) * seconds };
    const text = textOf(key);
    const window = touched.get(text);
    if (window) addValue(window.state, value, step);
    else touched.set(text, { ...key, state: aggregateOf(value, step) });
  }
  for (const windows of slices([...touched.values()])) {
    const stored = new Map((await readOwn(tx, jobId, seconds, windows)).map((part) => [textOf(part), part]));
    const rows = windows.map(({ state, ...key }) => {
      const before = stored.get(textOf(key));
      return {
        ...key,
        jobId,
        seconds,
        state: before ? mergeAggregates(before.state, state) : state,
        revision: (before?.revision ?? 0) + 1,
        change: ++locked.stream.window,
        closed: before?.closed ?? false,
        rolled: false,
      };
    });
    // `rolled` becomes false again: the tiers hold an older revision of a closed window that
    // changed.
    await tx.execute(sql`${insertRows(metricWindow, rows)} on conflict (job_id, name, attempt, seconds, start) do update
      set state = excluded.state, revision = excluded.revision, change = excluded.change, rolled = excluded.rolled`);
  }
}

/**
 * Closes all windows of the job that are still open. The caller has ended its attempt, so no more
 * points come.
 */
export async function closeAllWindows(tx: Tx, locked: LockedJob): Promise<void> {
  await closeWindows(tx, locked, sql`true`);
}

/**
 * Closes the open windows that match `which`. They take change numbers in the order of start, then
 * name.
 */
async function closeWindows(tx: Tx, locked: LockedJob, which: SQL): Promise<void> {
  const { jobId, name, attempt, start, closed, rolled } = metricWindow;
  // `not rolled` adds no condition, since rolled windows are closed. It lets Postgres use the small
  // index of unrolled windows instead of reading all windows of the job.
  const open = tx
    .select({ place: sql`ctid` })
    .from(metricWindow)
    .where(and(eq(jobId, locked.job.id), not(closed), not(rolled), which))
    .orderBy(start, name, attempt);
  // Rows are joined by their place on disk (`ctid`): joined by their keys, a planner that expects
  // few rows compared each with each.
  const rows = await tx.execute(sql`
    update ${metricWindow}
    set closed = true, revision = revision + 1, change = ${locked.stream.window}::bigint + o.number
    from unnest(array(${open})) with ordinality as o(place, number)
    where ${metricWindow}.ctid = o.place`);
  locked.stream.window += rows.count;
}
