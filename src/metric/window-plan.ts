// Which stored windows give windows of a length: the plan, its bounds, and how many there are.
import { and, eq, type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { Refusal } from '../errors.ts';
import type { Job } from '../job/job.ts';
import { windowSecondsOf } from './metric.ts';
import { readableLengths, type Retention } from './retention.ts';
import { type metric, metricTier, metricWindow } from './table.ts';

/** Stored windows that one window is merged from, at most. */
const maxPartsPerWindow = 10_000;

/**
 * How to read windows of a job that are `seconds` long: merged from stored windows of length
 * `from`. `base` is the length of the job's own windows; `readable` lists the stored lengths that
 * are still complete, finest first. All lengths are in seconds.
 */
export type Plan = { jobId: string; base: number; seconds: number; from: number; readable: number[] };

/**
 * Plans how to read windows of `seconds`; null asks for the finest length that is kept. When the
 * stored windows that it needs are past retention, the plan has a coarser length. Throws
 * BAD_USER_INPUT for a length that is no multiple of the job's own.
 */
export async function planWindows(db: Db, job: Job, seconds: number | null, retention: Retention): Promise<Plan> {
  const base = windowSecondsOf({ job });
  if (seconds !== null && (seconds < 1 || seconds % base !== 0)) throw badLength(seconds, base);
  const readable = await readableLengths(db, job, retention);
  return planOf(job.id, base, seconds, readable);
}

function planOf(jobId: string, base: number, requested: number | null, readable: number[]): Plan {
  const finest = readable[0] ?? base;
  const fits = readable.some((length) => requested !== null && requested % length === 0);
  const seconds = fits && requested !== null ? requested : Math.ceil((requested ?? 1) / finest) * finest;
  const from = readable.findLast((length) => seconds % length === 0) ?? finest;
  if (seconds / from > maxPartsPerWindow) {
    throw badWindow(`windowSeconds is ${seconds}; for this job it goes up to ${from * maxPartsPerWindow}.`);
  }
  return { jobId, base, seconds, from, readable };
}

function badLength(seconds: number, base: number): Refusal {
  const examples = [base, 2 * base, 10 * base].join(', ');
  return badWindow(
    `windowSeconds is ${seconds}; this job's windows are of ${base} s, and longer ones are merged from them.`,
    `Pass a multiple of ${base}, e.g. ${examples}, or none.`,
  );
}

function badWindow(message: string, hint?: string): Refusal {
  return new Refusal('BAD_USER_INPUT', message, { path: ['windowSeconds'], ...(hint ? { hint } : {}) });
}

export type WindowRange = { name: string; since?: Date | null; until?: Date | null };

/**
 * Plans windows of the finest stored length at which the range has at most `maxWindows` windows.
 * When even the coarsest has more, its length is doubled, up to twelve times.
 */
export async function planByCount(
  db: Db,
  job: Job,
  range: WindowRange,
  maxWindows: number,
  retention: Retention,
): Promise<Plan> {
  const readable = await readableLengths(db, job, retention);
  const base = windowSecondsOf({ job });
  const coarsest = readable.at(-1) ?? base;
  const candidates = [...readable, ...Array.from({ length: 12 }, (_, n) => coarsest * 2 ** (n + 1))];
  let plan = planOf(job.id, base, null, readable);
  for (const seconds of candidates) {
    plan = planOf(job.id, base, seconds, readable);
    if ((await countKeys(db, plan, range)) <= maxWindows) break;
  }
  return plan;
}

async function countKeys(db: Db, plan: Plan, range: WindowRange): Promise<number> {
  const [row] = await db.execute<{ count: string }>(
    sql`select count(distinct (${mergedStart(plan)}, attempt)) as count from (${stored(plan, range)}) as parts`,
  );
  return Number(row?.count ?? 0);
}
export const mergedStart = ({ seconds }: Plan) => sql.raw(`start / ${seconds} * ${seconds}`);

/**
 * SQL that selects start and attempt of the stored windows of a metric in a range. `place` narrows
 * it to the windows after or before a page's end.
 */
export function stored(
  plan: Plan,
  range: Omit<WindowRange, 'name'> & { name: WindowRange['name'] | typeof metric.name },
  place: { after?: readonly number[]; before?: readonly number[] } = {},
) {
  const up = (time: Date) => Math.ceil(time.getTime() / 1000 / plan.seconds) * plan.seconds;
  const low = Math.max(range.since ? up(range.since) : 0, place.after?.[0] ?? 0);
  const high = Math.min(range.until ? up(range.until) : Infinity, (place.before?.[0] ?? Infinity) + plan.seconds);
  const selectFrom = (table: typeof metricWindow | typeof metricTier, seconds: number, more?: SQL) => sql`
    select ${table.start} as start, ${table.attempt} as attempt from ${table}
    where ${and(
      eq(table.jobId, plan.jobId),
      eq(table.name, range.name),
      eq(table.seconds, seconds),
      sql`${table.start} >= ${low}`,
      Number.isFinite(high) ? sql`${table.start} < ${high}` : undefined,
      more,
    )}`;
  if (plan.from === plan.base) return selectFrom(metricWindow, plan.base);
  return sql`${selectFrom(metricTier, plan.from)} union all ${selectFrom(metricWindow, plan.base, sql`not ${metricWindow.rolled}`)}`;
}
