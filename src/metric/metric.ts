// Metrics: points are merged into windows in the transaction that stores them, so a batch that comes again never counts
// twice. Every change of a window takes the job's next change number and a higher revision, its closing included.
import { and, asc, desc, eq, gt, gte, inArray, lt, lte, or, type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { Refusal } from '../errors.ts';
import type { LockedJob } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import { metric, metricChunk, type metricTier, metricWindow, type StoredPoint } from './table.ts';
import { type Aggregate, aggregateOf, fromStored, mergeAggregates, toStored } from './window.ts';

export type Metric = typeof metric.$inferSelect;
export type MetricWindow = typeof metricWindow.$inferSelect;

export type NewPoint = {
  name: string;
  value: number;
  step: number | null;
  epoch: number | null;
  /** Milliseconds since the Unix epoch. */
  time: number;
};

/** Length of a job's windows in seconds. */
export function windowSecondsOf(locked: { job: LockedJob['job'] }): number {
  return (locked.job.effective['metrics'] as { window_seconds: number }).window_seconds;
}

/**
 * Stores points of an attempt, in order, and merges them into its windows; then closes windows of the job that the
 * newest point has left behind by more than the grace of one length. `first` is the number of the first record.
 */
export async function appendPoints(
  tx: Tx,
  locked: LockedJob,
  attempt: number,
  first: number,
  points: readonly NewPoint[],
): Promise<void> {
  if (points.length === 0) return;
  const jobId = locked.job.id;
  const body = Buffer.from(
    JSON.stringify(points.map(({ name, value, step, epoch, time }) => [name, toStored(value), step, epoch, time])),
  );
  await tx.insert(metricChunk).values({ jobId, attempt, first, body });
  await mergeSummaries(tx, jobId, attempt, points);
  const seconds = windowSecondsOf(locked);
  await mergeWindows(tx, locked, attempt, seconds, points);
  const newest = Math.max(...points.map((point) => point.time)) / 1000;
  await closeWindows(tx, locked, lt(metricWindow.start, Math.floor(newest) - 2 * seconds));
}

async function mergeSummaries(tx: Tx, jobId: string, attempt: number, points: readonly NewPoint[]): Promise<void> {
  const names = [...new Set(points.map((point) => point.name))];
  const known = await tx
    .select()
    .from(metric)
    .where(and(eq(metric.jobId, jobId), inArray(metric.name, names)));
  const summaries = new Map<string, Metric>(known.map((row) => [row.name, row]));
  for (const { name, value, step, epoch, time } of points) {
    const point: StoredPoint = { step, epoch, time, value: toStored(value), attempt };
    const before = summaries.get(name);
    const finite = Number.isFinite(value);
    summaries.set(name, {
      jobId,
      name,
      count: (before?.count ?? 0) + 1,
      last: point,
      min: finite && (!before?.min || value < fromStored(before.min.value)) ? point : (before?.min ?? null),
      max: finite && (!before?.max || value > fromStored(before.max.value)) ? point : (before?.max ?? null),
    });
  }
  await tx
    .insert(metric)
    .values([...summaries.values()])
    .onConflictDoUpdate({
      target: [metric.jobId, metric.name],
      set: { count: excluded('count'), last: excluded('last'), min: excluded('min'), max: excluded('max') },
    });
}

async function mergeWindows(
  tx: Tx,
  locked: LockedJob,
  attempt: number,
  seconds: number,
  points: readonly NewPoint[],
): Promise<void> {
  const jobId = locked.job.id;
  const touched = new Map<string, { name: string; start: number; state: Aggregate }>();
  for (const { name, value, step, time } of points) {
    const start = Math.floor(time / 1000 / seconds) * seconds;
    const key = `${start} ${name}`;
    const before = touched.get(key)?.state;
    const added = aggregateOf(value, step);
    touched.set(key, { name, start, state: before ? mergeAggregates(before, added) : added });
  }
  const windows = [...touched.values()];
  const known = await tx
    .select()
    .from(metricWindow)
    .where(
      and(
        eq(metricWindow.jobId, jobId),
        eq(metricWindow.attempt, attempt),
        eq(metricWindow.seconds, seconds),
        inArray(metricWindow.name, [...new Set(windows.map((window) => window.name))]),
        inArray(metricWindow.start, [...new Set(windows.map((window) => window.start))]),
      ),
    );
  const before = new Map(known.map((row) => [`${row.start} ${row.name}`, row]));
  const rows = windows.map(({ name, start, state }) => {
    const old = before.get(`${start} ${name}`);
    return {
      jobId,
      name,
      attempt,
      seconds,
      start,
      state: old ? mergeAggregates(old.state, state) : state,
      revision: (old?.revision ?? 0) + 1,
      change: ++locked.stream.window,
      closed: old?.closed ?? false,
      rolled: false,
    };
  });
  await tx
    .insert(metricWindow)
    .values(rows)
    .onConflictDoUpdate({
      target: [metricWindow.jobId, metricWindow.name, metricWindow.attempt, metricWindow.seconds, metricWindow.start],
      // A closed window that changes once more is not what the tiers hold.
      set: {
        state: excluded('state'),
        revision: excluded('revision'),
        change: excluded('change'),
        rolled: excluded('rolled'),
      },
    });
}

function excluded(column: string): SQL {
  return sql.raw(`excluded."${column}"`);
}

/** Closes what is still open of a job's windows: its attempt has ended, and nothing comes after. */
export async function closeAllWindows(tx: Tx, locked: LockedJob): Promise<void> {
  await closeWindows(tx, locked, sql`true`);
}

async function closeWindows(tx: Tx, locked: LockedJob, which: SQL): Promise<void> {
  const open = await tx
    .select()
    .from(metricWindow)
    .where(and(eq(metricWindow.jobId, locked.job.id), eq(metricWindow.closed, false), which))
    .orderBy(asc(metricWindow.start), asc(metricWindow.name));
  for (const row of open) {
    await tx
      .update(metricWindow)
      .set({ closed: true, revision: row.revision + 1, change: ++locked.stream.window })
      .where(
        and(
          eq(metricWindow.jobId, row.jobId),
          eq(metricWindow.name, row.name),
          eq(metricWindow.attempt, row.attempt),
          eq(metricWindow.seconds, row.seconds),
          eq(metricWindow.start, row.start),
        ),
      );
  }
}

/** Condition for a list of names; a trailing `*` matches a prefix. */
export function named(
  column: typeof metric.name | typeof metricWindow.name | typeof metricTier.name,
  names: readonly string[] | null,
): SQL | undefined {
  if (!names) return undefined;
  const exact = names.filter((name) => !name.endsWith('*'));
  const prefixes = names.filter((name) => name.endsWith('*')).map((name) => name.slice(0, -1));
  return or(
    exact.length > 0 ? inArray(column, exact) : sql`false`,
    ...prefixes.map((prefix) => sql`starts_with(${column}, ${prefix})`),
  );
}

/** Whether a metric is better when it is smaller or larger: by its name, else by what the job stops early for. */
export function goalOf({ effective }: LockedJob['job'], name: string): 'MINIMIZE' | 'MAXIMIZE' | null {
  if (/loss/i.test(name)) return 'MINIMIZE';
  if (/accuracy/i.test(name)) return 'MAXIMIZE';
  const { early_stopping: stopping } = (effective['hyperparams'] ?? {}) as {
    early_stopping?: { monitor?: string; goal?: 'MINIMIZE' | 'MAXIMIZE' };
  };
  return stopping?.monitor === name ? (stopping.goal ?? null) : null;
}

/**
 * Metrics of a job with their latest values and extremes, ordered by name: all, or the `first` of those behind a name.
 * Reads no points.
 */
export async function listMetrics(
  db: Db,
  jobId: string,
  names: readonly string[] | null,
  page: { first?: number; after?: string | null } = {},
): Promise<Metric[]> {
  const behind = typeof page.after === 'string' ? gt(metric.name, page.after) : undefined;
  const rows = db
    .select()
    .from(metric)
    .where(and(eq(metric.jobId, jobId), named(metric.name, names), behind))
    .orderBy(asc(metric.name));
  return page.first === undefined ? rows : rows.limit(page.first);
}

/** Number of a job's metrics. */
export async function countMetrics(db: Db, jobId: string): Promise<number> {
  return db.$count(metric, eq(metric.jobId, jobId));
}

export async function getMetric(db: Db, jobId: string, name: string): Promise<Metric | null> {
  const [found] = await db
    .select()
    .from(metric)
    .where(and(eq(metric.jobId, jobId), eq(metric.name, name)));
  return found ?? null;
}

/**
 * Windows of one metric, oldest first, one more than the limit. A place in this order is [start, attempt].
 */
export async function listWindows(
  db: Db,
  of: { jobId: string; name: string; since?: Date | null; until?: Date | null },
  page: { limit: number; backward: boolean; after?: readonly number[]; before?: readonly number[] },
): Promise<MetricWindow[]> {
  const order = keyset([metricWindow.start, metricWindow.attempt], { ...page, descending: false });
  const rows = await db
    .select()
    .from(metricWindow)
    .where(
      and(
        eq(metricWindow.jobId, of.jobId),
        eq(metricWindow.name, of.name),
        of.since ? gte(metricWindow.start, Math.ceil(of.since.getTime() / 1000)) : undefined,
        of.until ? lt(metricWindow.start, of.until.getTime() / 1000) : undefined,
        ...order.where,
      ),
    )
    .orderBy(...order.orderBy)
    .limit(order.limit);
  return order.inOrder(rows);
}

export type WindowSelection = { names: readonly string[] | null; closedOnly: boolean };

/** Windows whose newest change lies in (after, head], in order of change, `limit` at most. */
export async function readWindowChanges(
  db: Db,
  jobId: string,
  range: { after: number; head: number; limit: number },
  selection: WindowSelection,
): Promise<MetricWindow[]> {
  return db
    .select()
    .from(metricWindow)
    .where(
      and(
        eq(metricWindow.jobId, jobId),
        gt(metricWindow.change, range.after),
        lte(metricWindow.change, range.head),
        named(metricWindow.name, selection.names),
        selection.closedOnly ? eq(metricWindow.closed, true) : undefined,
      ),
    )
    .orderBy(asc(metricWindow.change))
    .limit(range.limit);
}

/** Windows that one batch may begin with: they are in memory, and one message, together. */
const maxLastWindows = 5_000;

/** Throws OPERATION_TOO_LARGE when the last windows of so many metrics are too many for one batch. */
export function requireFew(metrics: number, last: number): void {
  if (metrics * last <= maxLastWindows) return;
  const message = `last: ${last} asks for the last windows of too many metrics at once; ${maxLastWindows} windows are the most.`;
  const hint = 'Pass names, or a smaller last; Job.metrics tells the newest value of each metric.';
  throw new Refusal('OPERATION_TOO_LARGE', message, { path: ['last'], hint });
}

/** The newest `last` windows of each selected metric up to a change, oldest first. */
export async function readLastWindows(
  db: Db,
  jobId: string,
  head: number,
  last: number,
  selection: WindowSelection,
): Promise<MetricWindow[]> {
  const metrics = await listMetrics(db, jobId, selection.names, { first: maxLastWindows + 1 });
  requireFew(metrics.length, last);
  const windows: MetricWindow[] = [];
  for (const { name } of metrics) {
    const rows = await db
      .select()
      .from(metricWindow)
      .where(
        and(
          eq(metricWindow.jobId, jobId),
          eq(metricWindow.name, name),
          lte(metricWindow.change, head),
          selection.closedOnly ? eq(metricWindow.closed, true) : undefined,
        ),
      )
      .orderBy(desc(metricWindow.start), desc(metricWindow.attempt))
      .limit(last);
    windows.push(...rows.reverse());
  }
  return windows;
}
