// Reads of what a job measured: its metrics with their summaries, and its own windows. `append.ts`
// writes them.
import { and, asc, desc, eq, gt, gte, lt, lte, or, type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { isOneOf } from '../database/rows.ts';
import { Refusal } from '../errors.ts';
import type { LockedJob } from '../job/job.ts';
import { metric, type metricTier, metricWindow } from './table.ts';

export type Metric = typeof metric.$inferSelect;
export type MetricWindow = typeof metricWindow.$inferSelect;

/** Length of the job's own windows, in seconds, from its effective spec. */
export function windowSecondsOf(locked: { job: LockedJob['job'] }): number {
  return locked.job.effective.metrics.window_seconds;
}

/**
 * SQL condition: the column is one of `names`; a name with a trailing `*` matches a prefix.
 * Undefined (no condition) for null.
 */
export function named(
  column: typeof metric.name | typeof metricWindow.name | typeof metricTier.name,
  names: readonly string[] | null,
): SQL | undefined {
  if (!names) return undefined;
  const exact = names.filter((name) => !name.endsWith('*'));
  const prefixes = names.filter((name) => name.endsWith('*')).map((name) => name.slice(0, -1));
  return or(isOneOf(column, exact), ...prefixes.map((prefix) => sql`starts_with(${column}, ${prefix})`));
}

/**
 * Whether a smaller or a larger value of the metric is better: by its name ("loss", "accuracy"),
 * else by the goal of the job's early stopping. Null when neither says.
 */
export function goalOf({ effective }: LockedJob['job'], name: string): 'MINIMIZE' | 'MAXIMIZE' | null {
  if (/loss/i.test(name)) return 'MINIMIZE';
  if (/accuracy/i.test(name)) return 'MAXIMIZE';
  const { monitor, goal } = effective.hyperparams.early_stopping;
  return monitor === name ? goal : null;
}

/**
 * Lists metrics of a job with their latest values and extremes, ordered by name: all, or the
 * `first` ones behind the name `after`. Reads no points.
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

/** Counts the points of a job: `total` over all its metrics, `counts` for each of `names`. */
export async function countPoints(
  db: Db,
  jobId: string,
  names: readonly string[],
): Promise<{ total: number; counts: Map<string, number> }> {
  const total = sql<number>`(select sum(count) from metric where job_id = ${jobId})`.mapWith(Number);
  const rows = await db
    .select({ name: metric.name, count: metric.count, total })
    .from(metric)
    .where(and(eq(metric.jobId, jobId), isOneOf(metric.name, names)));
  return { total: rows[0]?.total ?? 0, counts: new Map(rows.map(({ name, count }) => [name, count])) };
}

export async function getMetric(db: Db, jobId: string, name: string): Promise<Metric | null> {
  const [row] = await db
    .select()
    .from(metric)
    .where(and(eq(metric.jobId, jobId), eq(metric.name, name)));
  return row ?? null;
}

/**
 * Lists the job's own windows of one metric, oldest first, one more than the limit when there are
 * more. `after` and `before` are places [start, attempt] in this order.
 */
export async function listWindows(
  db: Db,
  range: { jobId: string; name: string; since?: Date | null; until?: Date | null },
  page: { limit: number; backward: boolean; after?: readonly number[]; before?: readonly number[] },
): Promise<MetricWindow[]> {
  const order = keyset([metricWindow.start, metricWindow.attempt], { ...page, descending: false });
  const rows = await db
    .select()
    .from(metricWindow)
    .where(
      and(
        eq(metricWindow.jobId, range.jobId),
        eq(metricWindow.name, range.name),
        range.since ? gte(metricWindow.start, Math.ceil(range.since.getTime() / 1000)) : undefined,
        range.until ? lt(metricWindow.start, range.until.getTime() / 1000) : undefined,
        ...order.where,
      ),
    )
    .orderBy(...order.orderBy)
    .limit(order.limit);
  return order.inOrder(rows);
}

export type WindowSelection = { names: readonly string[] | null; closedOnly: boolean };

/** Lists windows whose newest change lies in (after, head], in order of change, at most `limit`. */
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

/**
 * Upper bound of the windows with which a subscription opens: they are in memory, and in one
 * message, together.
 */
export const maxLastWindows = 5_000;

/**
 * Lists the newest `last` windows of each selected metric with changes up to `head`, by name and
 * oldest first. Throws OPERATION_TOO_LARGE for more than `maxLastWindows` in all.
 */
export async function readLastWindows(
  db: Db,
  jobId: string,
  head: number,
  last: number,
  selection: WindowSelection,
): Promise<MetricWindow[]> {
  const names = db
    .select({ name: metric.name })
    .from(metric)
    .where(and(eq(metric.jobId, jobId), named(metric.name, selection.names)))
    .as('names');
  const newest = db
    .select()
    .from(metricWindow)
    .where(
      and(
        eq(metricWindow.jobId, jobId),
        eq(metricWindow.name, names.name),
        lte(metricWindow.change, head),
        selection.closedOnly ? eq(metricWindow.closed, true) : undefined,
      ),
    )
    .orderBy(desc(metricWindow.start), desc(metricWindow.attempt))
    .limit(last)
    .as('newest');
  const rows = await db
    .select()
    .from(names)
    .innerJoinLateral(newest, sql`true`)
    .orderBy(asc(newest.name), asc(newest.start), asc(newest.attempt))
    .limit(maxLastWindows + 1);
  if (rows.length > maxLastWindows) throw tooManyLast(last);
  return rows.map((row) => row.newest);
}

/**
 * The refusal of a subscription whose first message would hold too many windows: they are read and
 * sent in one piece.
 */
export function tooManyLast(last: number): Refusal {
  const message = `last: ${last} asks for more than ${maxLastWindows} windows of all its metrics together.`;
  const hint = 'Pass names, or a smaller last; Job.metrics tells the newest value of each metric.';
  return new Refusal('OPERATION_TOO_LARGE', message, { path: ['last'], hint });
}
