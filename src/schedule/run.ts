// Records the decision on each due time: started with its job, or skipped with the reason.
import { and, asc, desc, eq, gt, lt, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { isOneOf } from '../database/rows.ts';
import type { Tx } from '../live/commit.ts';
import { openCalendar } from './calendar.ts';
import type { PageOptions, Schedule } from './schedule.ts';
import { schedule, scheduleRun } from './table.ts';

export type ScheduleRun = typeof scheduleRun.$inferSelect;

export const skipCodes = [
  'MISSED',
  'PREVIOUS_RUNNING',
  'PAUSED',
  'CHANGED',
  'POLICY_VIOLATION',
  'INVALID_STATE',
  'INVALID_INPUT',
] as const;
export type SkipReason = { code: (typeof skipCodes)[number]; message: string };

/**
 * Lists the decisions on the due times of a schedule, newest first: up to `limit` and one more,
 * which tells that another page follows.
 */
export async function listRuns(db: Db, scheduleId: string, page: PageOptions): Promise<ScheduleRun[]> {
  const order = keyset([scheduleRun.dueAt], { ...page, descending: true });
  const rows = await db
    .select()
    .from(scheduleRun)
    .where(and(eq(scheduleRun.scheduleId, scheduleId), ...order.where))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  return order.inOrder(rows);
}

/** Records all undecided due times up to `clock` as skipped for this reason, in one row. */
export async function passOver(tx: Tx, row: Schedule, clock: Date, reason: SkipReason): Promise<void> {
  if (!row.nextDueAt || row.nextDueAt > clock) return;
  await skipUntil(tx, row, new Date(clock.getTime() + 1), reason, clock);
}

/**
 * Records the due times from the next one to the last before `end` as skipped, and returns the
 * last. One row holds them all, e.g. a year of minutes.
 */
export async function skipUntil(tx: Tx, row: Schedule, end: Date, reason: SkipReason, clock: Date): Promise<Date> {
  const dueAt = row.nextDueAt ?? end;
  const last = openCalendar(row).before(end);
  const lastDueAt = last && last > dueAt ? last : dueAt;
  await recordSkip(tx, row, { dueAt, lastDueAt }, reason, clock);
  return lastDueAt;
}

/**
 * Whether this due time was decided before. It may come again after the clock went back or the
 * schedule was changed; its job must not be submitted twice.
 */
export async function isDecided(tx: Tx, row: Schedule, dueAt: Date): Promise<boolean> {
  const decided = and(eq(scheduleRun.scheduleId, row.id), eq(scheduleRun.dueAt, dueAt));
  return (await tx.$count(scheduleRun, decided)) > 0;
}

/**
 * Records skipped due times. A skip that directly follows another with the same reason extends the
 * row of that one.
 */
export async function recordSkip(
  tx: Tx,
  row: Schedule,
  { dueAt, lastDueAt }: { dueAt: Date; lastDueAt: Date },
  { code, message }: SkipReason,
  decidedAt: Date,
): Promise<void> {
  const [last] = await tx
    .select()
    .from(scheduleRun)
    .where(eq(scheduleRun.scheduleId, row.id))
    .orderBy(desc(scheduleRun.dueAt))
    .limit(1);
  const follows = last && openCalendar(row).after(last.lastDueAt)?.getTime() === dueAt.getTime();
  if (follows && last.reasonCode === code && last.reasonMessage === message) {
    const decided = and(eq(scheduleRun.scheduleId, row.id), eq(scheduleRun.dueAt, last.dueAt));
    await tx.update(scheduleRun).set({ lastDueAt, decidedAt }).where(decided);
    return;
  }
  const skip = { scheduleId: row.id, dueAt, lastDueAt, reasonCode: code, reasonMessage: message, decidedAt };
  await tx.insert(scheduleRun).values(skip).onConflictDoNothing();
}

/** Returns ids of schedules after the id `after`, in order. */
export async function listScheduleIds(db: Db, after: string, limit: number): Promise<string[]> {
  const rows = await db
    .select({ id: schedule.id })
    .from(schedule)
    .where(gt(schedule.id, after))
    .orderBy(asc(schedule.id))
    .limit(limit);
  return rows.map(({ id }) => id);
}

/**
 * Removes up to `limit` decisions on due times before `before`. True when no more are left. The
 * newest row of each schedule stays, because the next skip may extend it.
 */
export async function pruneRuns(tx: Tx, ids: readonly string[], before: Date, limit: number): Promise<boolean> {
  const newest = sql`(select max(due_at) from ${scheduleRun} as later where later.schedule_id = ${scheduleRun}.schedule_id)`;
  const old = tx
    .select({ rowId: sql`ctid` })
    .from(scheduleRun)
    .where(
      and(
        isOneOf(scheduleRun.scheduleId, ids),
        lt(scheduleRun.dueAt, before),
        lt(scheduleRun.lastDueAt, before),
        sql`${scheduleRun.dueAt} < ${newest}`,
      ),
    )
    .limit(limit);
  const removed = await tx
    .delete(scheduleRun)
    .where(sql`ctid in ${old}`)
    .returning({ dueAt: scheduleRun.dueAt });
  return removed.length < limit;
}
