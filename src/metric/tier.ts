// Tiers: windows of five minutes and of an hour, merged in the background from the job's own
// windows. A long job is then read in few rows, and tiers stay when finer windows are removed. A
// closed window is not `rolled` while the tiers lack it or hold an older revision. A tier window is
// always merged anew from all windows that it spans, so that a roll-up that runs twice changes
// nothing.
import { and, asc, eq, type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { insertRows, isOneOf } from '../database/rows.ts';
import { lockFree } from '../job/ended.ts';
import type { Tx } from '../live/commit.ts';
import { metricTier, metricWindow } from './table.ts';
import { type Aggregate, mergeAggregates } from './window.ts';

/** Lengths of the tiers in seconds. */
export const [fiveMinutes, hour] = [300, 3_600];

/**
 * Lengths, in seconds, at which windows of a job are stored, finest first: its own (`base`), and
 * each tier whose length is a multiple of it. Windows of 45 s fill an hour but not five minutes;
 * windows of 7 s fill neither.
 */
export function lengthsOf(base: number): number[] {
  return [base, ...[fiveMinutes, hour].filter((seconds) => seconds > base && seconds % base === 0)];
}

/** Identifies a window of one length in a job; `start` is in seconds since the Unix epoch. */
export type WindowKey = { name: string; attempt: number; start: number };

/** A window of any length as a part to be merged. */
export type Part = WindowKey & { state: Aggregate; revision: number; change: number; closed: boolean };

/** Jobs with unrolled windows that one roll-up looks at: it takes the first that it can lock. */
const jobsPerLook = 20;

/**
 * Merges up to `limit` windows of one job into its tiers. Returns false when no job has unrolled
 * windows, or others have locked all that have.
 */
export async function rollUpNext(tx: Tx, limit = 200): Promise<boolean> {
  const waiting = await tx
    .selectDistinct({ jobId: metricWindow.jobId })
    .from(metricWindow)
    .where(and(eq(metricWindow.closed, true), notRolled))
    .limit(jobsPerLook);
  const jobId = await lockFree(
    tx,
    waiting.map((row) => row.jobId),
  );
  if (jobId === null) return false;
  await rollUp(tx, jobId, limit);
  return true;
}

const notRolled = sql`not ${metricWindow.rolled}`;

async function rollUp(tx: Tx, jobId: string, limit: number): Promise<void> {
  const { name, attempt, start, seconds } = metricWindow;
  const rows = await tx
    .select({ name, attempt, start, seconds })
    .from(metricWindow)
    .where(and(eq(metricWindow.jobId, jobId), eq(metricWindow.closed, true), notRolled))
    .orderBy(asc(name), asc(attempt), asc(start))
    .limit(limit);
  const base = rows[0]?.seconds;
  if (base === undefined) return; // another gateway has rolled them meanwhile
  let finer = base;
  for (const length of lengthsOf(base).slice(1)) {
    const keys = keysAt(length, rows);
    const read = finer === base ? readOwn : readTier(finer);
    await storeTier(tx, jobId, length, mergeParts(length, await read(tx, jobId, length, keys)));
    finer = length;
  }
  await tx
    .update(metricWindow)
    .set({ rolled: true })
    .where(and(eq(metricWindow.jobId, jobId), sql`(${name}, ${attempt}, ${start}) in (select * from ${listOf(rows)})`));
}

async function storeTier(tx: Tx, jobId: string, seconds: number, parts: readonly Part[]): Promise<void> {
  if (parts.length === 0) return;
  const rows = parts.map(({ name, attempt, start, state, revision, change }) => {
    return { jobId, name, attempt, seconds, start, state, revision, change };
  });
  await tx.execute(sql`${insertRows(metricTier, rows)} on conflict (job_id, name, seconds, start, attempt) do update
    set state = excluded.state, revision = excluded.revision, change = excluded.change`);
}

/** Keys of the windows of `length` seconds that contain the windows with these keys, each once. */
export function keysAt(length: number, keys: readonly WindowKey[]): WindowKey[] {
  const merged = new Map<string, WindowKey>();
  for (const { name, attempt, start } of keys) {
    const key = { name, attempt, start: Math.floor(start / length) * length };
    merged.set(textOf(key), key);
  }
  return [...merged.values()];
}

export function textOf({ name, attempt, start }: WindowKey): string {
  return `${start} ${attempt} ${name}`;
}

/** Merges parts into windows of `length` seconds. Parts are merged in the order of their starts. */
export function mergeParts(length: number, parts: readonly Part[]): Part[] {
  const merged = new Map<string, Part>();
  for (const part of parts.toSorted((a, b) => a.start - b.start)) {
    const start = Math.floor(part.start / length) * length;
    const key = textOf({ ...part, start });
    const before = merged.get(key);
    merged.set(
      key,
      before
        ? {
            ...before,
            state: mergeAggregates(before.state, part.state),
            revision: before.revision + part.revision,
            change: Math.max(before.change, part.change),
            closed: before.closed && part.closed,
          }
        : { ...part, start },
    );
  }
  return [...merged.values()];
}

/** Reads the job's own windows that lie inside of these windows of `length` seconds. */
export async function readOwn(db: Db, jobId: string, length: number, keys: readonly WindowKey[]): Promise<Part[]> {
  return readInside(db, metricWindow, eq(metricWindow.jobId, jobId), length, keys);
}

/**
 * Makes a reader of the tier of `seconds`, with the signature of `readOwn`. Windows of a tier
 * always count as closed: only closed ones are merged into it.
 */
export function readTier(seconds: number): typeof readOwn {
  return (db, jobId, length, keys) => {
    const which = and(eq(metricTier.jobId, jobId), eq(metricTier.seconds, seconds));
    return readInside(db, metricTier, which, length, keys);
  };
}

/**
 * Lists the job's own windows that lie inside of these windows of `length` seconds and that the
 * tiers lack.
 */
export async function listUnrolled(
  db: Db,
  jobId: string,
  length: number,
  keys: readonly WindowKey[],
): Promise<WindowKey[]> {
  return readInside(db, metricWindow, and(eq(metricWindow.jobId, jobId), notRolled), length, keys);
}

/**
 * A lateral join looks up each key in the index by itself: a planner that expects few windows of
 * the job would compare each window with each key.
 */
async function readInside(
  db: Db,
  table: typeof metricWindow | typeof metricTier,
  which: SQL | undefined,
  length: number,
  keys: readonly WindowKey[],
): Promise<Part[]> {
  if (keys.length === 0) return [];
  const isClosed = table === metricWindow ? sql`${metricWindow.closed}` : sql`true`;
  const inside = db
    .select({
      name: table.name,
      attempt: table.attempt,
      start: table.start,
      state: table.state,
      revision: table.revision,
      change: table.change,
      closed: isClosed.mapWith(Boolean).as('closed'),
    })
    .from(table)
    .where(and(which, within(table, length)))
    // A window lasts a second at least, so `length` of them are all there can be. The limit keeps
    // the planner from turning the lateral join into a plain one.
    .limit(length)
    .as('inside');
  const { name, attempt, start, state, revision, change, closed } = inside;
  return db
    .select({ name, attempt, start, state, revision, change, closed })
    .from(listOf(keys))
    .innerJoinLateral(inside, sql`true`);
}

/** Whether the tiers hold all windows of these jobs. */
export async function isRolledUp(db: Db, jobIds: readonly string[]): Promise<boolean> {
  const [row] = await db
    .select({ jobId: metricWindow.jobId })
    .from(metricWindow)
    .where(and(isOneOf(metricWindow.jobId, jobIds), notRolled))
    .limit(1);
  return !row;
}

/** Keys as the table `k` of a query. They are one JSON parameter, however many they are. */
function listOf(keys: readonly WindowKey[]): SQL {
  const rows = JSON.stringify(keys.map(({ name, attempt, start }) => ({ name, attempt, start })));
  return sql`jsonb_to_recordset(${rows}::jsonb) as k(name text, attempt integer, start bigint)`;
}

function within(table: typeof metricWindow | typeof metricTier, length: number): SQL {
  return sql`${table.name} = k.name and ${table.attempt} = k.attempt and ${table.start} >= k.start and ${table.start} < k.start + ${length}`;
}
