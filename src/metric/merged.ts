// Windows of any length that is a multiple of the job's own window length, merged while they are
// read. Their parts are the coarsest stored windows that fit into them, and the job's own windows
// where a tier (five minutes, an hour) lags behind.
import { and, eq, gt, lte, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import type { Job } from '../job/job.ts';
import { isTerminal } from '../job/state.ts';
import { listWindows, maxLastWindows, type MetricWindow, named, tooManyLast, type WindowSelection } from './metric.ts';
import { metric, metricTier, metricWindow } from './table.ts';
import { keysAt, listUnrolled, mergeParts, type Part, readOwn, readTier, textOf, type WindowKey } from './tier.ts';
import { mergedStart, type Plan, stored, type WindowRange } from './window-plan.ts';

/** A window as callers see it: whether a tier holds it (`rolled`) is internal. */
export type Window = Omit<MetricWindow, 'rolled'>;

/** Stored windows that one page reads, at most. */
const maxPartsPerPage = 50_000;

/** Number of windows on one page: as many as can be merged from 50,000 stored windows. */
function pageLimit({ from, seconds }: Plan): number {
  return Math.max(1, Math.floor((maxPartsPerPage * from) / seconds));
}

/**
 * Lists windows of one metric, oldest first. `after` and `before` are places [start, attempt]. The
 * page may be lowered to what can be merged; `limit` is the size that was used, and one window more
 * is returned when there is one.
 */
export async function listMerged(
  db: Db,
  plan: Plan,
  range: WindowRange,
  page: { limit: number; backward: boolean; after?: readonly number[]; before?: readonly number[] },
): Promise<{ windows: Window[]; limit: number }> {
  const limit = Math.min(page.limit, pageLimit(plan));
  if (plan.seconds === plan.base) {
    return { windows: await listWindows(db, { jobId: plan.jobId, ...range }, { ...page, limit }), limit };
  }
  const direction = sql.raw(page.backward ? 'desc' : 'asc');
  const beyond = ([start, attempt]: readonly number[], sign: '<' | '>') =>
    sql`(${mergedStart(plan)}, attempt) ${sql.raw(sign)} (${start}::bigint, ${attempt}::integer)`;
  const rows = await db.execute<{ start: string; attempt: number }>(sql`
    select distinct ${mergedStart(plan)} as start, attempt from (${stored(plan, range, page)}) as parts
    where ${and(sql`true`, page.after && beyond(page.after, '>'), page.before && beyond(page.before, '<'))}
    order by 1 ${direction}, 2 ${direction} limit ${limit + 1}`);
  const keys = rows.map(({ start, attempt }) => ({ name: range.name, start: Number(start), attempt }));
  return { windows: await readMerged(db, plan, keys), limit };
}

/** Reads and merges the windows with these keys, oldest first. */
export async function readMerged(db: Db, plan: Plan, keys: readonly WindowKey[]): Promise<Window[]> {
  const { jobId, seconds } = plan;
  if (keys.length === 0) return [];
  const closedTo = seconds === plan.base ? 0 : await readClosedTo(db, jobId);
  const parts = mergeParts(seconds, await readParts(db, plan, keys));
  const windows = parts.map((part) => {
    // A window of the job's own length stores whether it is closed. A longer one is closed once all
    // of its time is over: its closed parts may be only those that came so far.
    const closed = part.closed && (seconds === plan.base || part.start + seconds <= closedTo);
    const revision = part.revision + (seconds !== plan.base && closed ? 1 : 0);
    return { ...part, jobId, seconds, closed, revision };
  });
  return windows.sort(inOrder);
}

function inOrder(a: WindowKey, b: WindowKey): number {
  return a.start - b.start || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0) || a.attempt - b.attempt;
}

async function readParts(db: Db, { jobId, base, seconds, from }: Plan, keys: readonly WindowKey[]): Promise<Part[]> {
  if (from === base) return readOwn(db, jobId, seconds, keys);
  // Windows that the tier lacks are looked up before the tier is read. A roll-up in between then
  // shows in both reads, and a window is never missing from both.
  const lagging = keysAt(from, await listUnrolled(db, jobId, seconds, keys));
  const fresh = mergeParts(from, await readOwn(db, jobId, from, lagging));
  const anew = new Set(fresh.map(textOf));
  const rolled = await readTier(from)(db, jobId, seconds, keys);
  return [...fresh, ...rolled.filter((part) => !anew.has(textOf(part)))];
}

/**
 * Returns the end of the job's newest closed window, in seconds since the Unix epoch; 0 for none.
 * With `change`, only changes up to this number count. Without it, an ended job answers Infinity.
 */
export async function readClosedTo(db: Db, jobId: string, change?: number): Promise<number> {
  const [row] = await db.execute<{ state: Job['state']; ended: string | null }>(sql`
    select job.state, (
      select max(newest.ended) from metric, lateral (
        select w.start + w.seconds as ended from metric_window w
        where w.job_id = metric.job_id and w.name = metric.name and w.closed
          ${change === undefined ? sql`` : sql`and w.change <= ${change}`}
        order by w.start desc limit 1
      ) as newest where metric.job_id = job.id
    ) as ended from job where job.id = ${jobId}`);
  if (change === undefined && row && isTerminal(row.state)) return Infinity;
  return Number(row?.ended ?? 0);
}

/**
 * Returns the change number after which a follower must go on so that it gets every window behind a
 * place of `listMerged`: one less than the smallest change number among these windows; null when
 * there is none.
 */
export async function changeBefore(
  db: Db,
  plan: Plan,
  name: string,
  [start = 0, attempt = 0]: readonly number[],
): Promise<number | null> {
  const behind = (table: typeof metricWindow | typeof metricTier, seconds: number) => sql`
    select min(${table.change}) as change from ${table}
    where ${and(eq(table.jobId, plan.jobId), eq(table.name, name), eq(table.seconds, seconds), sql`${table.start} >= ${start}`)}
      and (${mergedStart(plan)}, attempt) > (${start}::bigint, ${attempt}::integer)`;
  const own = behind(metricWindow, plan.base);
  const all = plan.from === plan.base ? own : sql`${own} union all ${behind(metricTier, plan.from)}`;
  const [row] = await db.execute<{ change: string | null }>(sql`select min(change) as change from (${all}) as parts`);
  return row?.change ? Number(row.change) - 1 : null;
}

/**
 * Lists the keys of windows with changes in (after, head]. It looks at `limit` changes at most;
 * `position` is the change that it reached, and `more` says that further ones follow.
 */
export async function readMergedChanges(
  db: Db,
  plan: Plan,
  range: { after: number; head: number; limit: number },
  selection: WindowSelection,
): Promise<{ keys: WindowKey[]; position: number; more: boolean }> {
  // Once retention has removed the job's own windows, the tiers tell what changed.
  const isOwn = plan.readable[0] === plan.base;
  const table = isOwn ? metricWindow : metricTier;
  const rows = await db
    .select({ name: table.name, attempt: table.attempt, start: table.start, change: table.change })
    .from(table)
    .where(
      and(
        eq(table.jobId, plan.jobId),
        eq(table.seconds, isOwn ? plan.base : plan.from),
        gt(table.change, range.after),
        lte(table.change, range.head),
        named(table.name, selection.names),
      ),
    )
    .orderBy(table.change)
    .limit(range.limit + 1);
  const more = rows.length > range.limit;
  const kept = rows.slice(0, range.limit);
  return {
    keys: keysAt(plan.seconds, kept),
    position: more ? (kept.at(-1)?.change ?? range.head) : range.head,
    more,
  };
}

/**
 * Lists windows that a follower at `position` has got as open and that are closed since, because
 * the newest closed time went from `closed.from` to `closed.to` (seconds since the Unix epoch). No
 * change of their own announces this closing.
 */
export async function listClosedSince(
  db: Db,
  plan: Plan,
  closed: { from: number; to: number },
  position: number,
  selection: WindowSelection,
): Promise<WindowKey[]> {
  if (closed.to <= closed.from) return [];
  const first = Math.floor(closed.from / plan.seconds) * plan.seconds;
  const rows = await db
    .select({ name: metricWindow.name, attempt: metricWindow.attempt, start: metricWindow.start })
    .from(metricWindow)
    .where(
      and(
        eq(metricWindow.jobId, plan.jobId),
        sql`${metricWindow.start} >= ${first}`,
        lte(metricWindow.change, position),
        named(metricWindow.name, selection.names),
      ),
    );
  return keysAt(plan.seconds, rows).filter((key) => key.start + plan.seconds <= closed.to);
}

/** The newest `last` windows of each selected metric, oldest first. */
export async function readLastMerged(db: Db, plan: Plan, last: number, selection: WindowSelection): Promise<Window[]> {
  if (last === 0) return [];
  const newest = sql`select distinct ${mergedStart(plan)} as start, attempt from (${stored(plan, { name: metric.name })}) as parts
    order by 1 desc, 2 desc limit ${Math.min(last, pageLimit(plan))}`;
  const rows = await db.execute<{ name: string; start: string; attempt: number }>(sql`
    select ${metric.name} as name, newest.start, newest.attempt from ${metric} cross join lateral (${newest}) as newest
    where ${and(eq(metric.jobId, plan.jobId), named(metric.name, selection.names))} limit ${maxLastWindows + 1}`);
  if (rows.length > maxLastWindows) throw tooManyLast(last);
  const keys = rows.map(({ name, start, attempt }) => ({ name, start: Number(start), attempt }));
  return readMerged(db, plan, keys);
}
