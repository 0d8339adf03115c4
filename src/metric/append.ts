// Points in: they are merged into summaries and windows in the transaction that stores them, so a batch that comes again
// never counts twice. Every change of a window takes the job's next change number and a higher revision, its closing
// included. A batch may bring 20,000 names or 40,000 windows: they are read and written in slices.
import { and, eq, lt, not, sql, type SQL } from 'drizzle-orm';
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

/** Rows of one statement. Reading 1,000 and making them into text takes about 25 ms, in which the process answers nobody. */
const rowsPerSlice = 1_000;

/**
 * Stores points of an attempt, in order, and merges them into its windows; then closes windows of the job that the
 * newest point has left behind by more than the grace of one length. `first` is the number of the first record. A job
 * keeps the first `maxNames` names that came, or fewer where its spec says so; points of further names are dropped.
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

/** How many names of metrics a job may have, and why, with what changes it. */
function nameLimitOf({ job }: LockedJob, maxNames: number): { names: number; reason: string } {
  const { max_names: own = Infinity } = job.effective.metrics;
  const reason =
    own < maxNames
      ? `metrics.max_names allows ${own} of a job. Raise it in the job spec, or in the policy of the project.`
      : `${maxNames} of a job are the most here. Whoever runs the gateway can raise ASTRAML_MAX_METRIC_NAMES.`;
  return { names: Math.min(own, maxNames), reason };
}

function toBody(points: readonly NewPoint[]): Buffer {
  const entries = points.map(({ name, value, step, epoch, time }) => [name, toStored(value), step, epoch, time]);
  return Buffer.from(JSON.stringify(entries));
}

/** The points that are kept, and the first name that is one too many. */
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
    const known = await tx
      .select()
      .from(metric)
      .where(and(eq(metric.jobId, jobId), isOneOf(metric.name, names)));
    const summaries = new Map(known.map((row) => [row.name, row]));
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
    const known = touched.get(text);
    if (known) addValue(known.state, value, step);
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
    // A closed window that changes once more is not what the tiers hold.
    await tx.execute(sql`${insertRows(metricWindow, rows)} on conflict (job_id, name, attempt, seconds, start) do update
      set state = excluded.state, revision = excluded.revision, change = excluded.change, rolled = excluded.rolled`);
  }
}

/** Closes what is still open of a job's windows: its attempt has ended, and nothing comes after. */
export async function closeAllWindows(tx: Tx, locked: LockedJob): Promise<void> {
  await closeWindows(tx, locked, sql`true`);
}

/** Closes open windows; they take their change numbers in the order of their starts, then names. */
async function closeWindows(tx: Tx, locked: LockedJob, which: SQL): Promise<void> {
  const { jobId, name, attempt, start, closed, rolled } = metricWindow;
  // Rolled windows are closed: saying so lets the index of the others answer, instead of all windows of the job.
  const open = tx
    .select({ place: sql`ctid` })
    .from(metricWindow)
    .where(and(eq(jobId, locked.job.id), not(closed), not(rolled), which))
    .orderBy(start, name, attempt);
  // By their places: joined by their keys, a planner that expects few rows compared each with each.
  const rows = await tx.execute(sql`
    update ${metricWindow}
    set closed = true, revision = revision + 1, change = ${locked.stream.window}::bigint + o.number
    from unnest(array(${open})) with ordinality as o(place, number)
    where ${metricWindow}.ctid = o.place`);
  locked.stream.window += rows.count;
}
