// Schedules: a template of a job and the times to submit it. edit.ts changes them, due.ts submits
// their jobs.
import { and, asc, desc, eq, not, sql } from 'drizzle-orm';
import { type Actor, canSee, requireScope, withIncluded } from '../actor.ts';
import { now as databaseNow } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { isOneOf } from '../database/rows.ts';
import { notFound } from '../errors.ts';
import type { Job } from '../job/job.ts';
import { terminalStates } from '../job/state.ts';
import { job } from '../job/table.ts';
import { type OverlapPolicy, schedule } from './table.ts';

export type Schedule = typeof schedule.$inferSelect;

export type ScheduleSettings = {
  cron: string;
  timezone: string;
  name: string;
  onOverlap: OverlapPolicy;
  startingDeadlineSeconds: number;
};

/** Returns the schedule as the actor that submits its jobs, with WRITE in its own project only. */
export function actorOf(row: Schedule): Actor {
  const name = `schedule ${row.name}`;
  return {
    tokenId: row.id,
    name,
    projectId: row.projectId,
    runnerProjectIds: null,
    scopes: withIncluded(['WRITE']),
    expiresAt: null,
  };
}

/** Returns the schedule; null when it does not exist or the actor may not see it. */
export async function getSchedule(db: Db, actor: Actor, id: string): Promise<Schedule | null> {
  if (id.includes('\0')) return null;
  const [row] = await db.select().from(schedule).where(eq(schedule.id, id));
  return row && canSee(actor, row.projectId) ? row : null;
}

/**
 * Returns the schedule. Throws NOT_FOUND when the actor may not see it, PERMISSION_DENIED without
 * the scope.
 */
export async function requireSchedule(
  db: Db,
  actor: Actor,
  id: string,
  scope: 'READ' | 'WRITE' = 'READ',
): Promise<Schedule> {
  const path = ['input', 'id'];
  const row = await getSchedule(db, actor, id);
  if (!row) throw notFound('Schedule', id, path);
  requireScope(actor, row.projectId, scope, path);
  return row;
}

/** Returns the schedules with these ids, by id. Checks no permission: the caller does. */
export async function loadSchedules(db: Db, ids: readonly string[]): Promise<Map<string, Schedule>> {
  const rows = await db.select().from(schedule).where(isOneOf(schedule.id, ids));
  return new Map(rows.map((row) => [row.id, row]));
}

export type PageOptions = { limit: number; backward: boolean; after?: readonly unknown[]; before?: readonly unknown[] };

/**
 * Lists schedules of a project by name: up to `limit` and one more, which tells that another page
 * follows.
 */
export async function listSchedules(db: Db, projectId: string, page: PageOptions): Promise<Schedule[]> {
  const order = keyset([schedule.name], { ...page, descending: false });
  const rows = await db
    .select()
    .from(schedule)
    .where(and(eq(schedule.projectId, projectId), ...order.where))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  return order.inOrder(rows);
}

/**
 * Lists up to 100 schedules that the token created and the actor can see. They go on after the
 * token is revoked, since a schedule is an actor of its own.
 */
export async function listSchedulesOf(db: Db, actor: Actor, tokenId: string): Promise<Schedule[]> {
  if (!actor.scopes.has('READ')) return [];
  const visible = actor.projectId === null ? undefined : eq(schedule.projectId, actor.projectId);
  const rows = db
    .select()
    .from(schedule)
    .where(and(eq(schedule.createdBy, tokenId), visible));
  return rows.orderBy(asc(schedule.id)).limit(100);
}

export function countSchedules(db: Db, projectId: string): Promise<number> {
  return db.$count(schedule, eq(schedule.projectId, projectId));
}

/** Returns the newest job of each schedule, by the id of the schedule. */
export async function loadLastJobs(db: Db, scheduleIds: readonly string[]): Promise<Map<string, Job>> {
  const rows = await db
    .selectDistinctOn([job.scheduleId])
    .from(job)
    .where(isOneOf(job.scheduleId, scheduleIds))
    .orderBy(asc(job.scheduleId), desc(job.createdAt), desc(job.id));
  return new Map(rows.flatMap((row) => (row.scheduleId === null ? [] : [[row.scheduleId, row]])));
}

/** Lists the jobs of a schedule that have not ended, in the order of their ids. */
export async function listActiveJobs(db: Db, scheduleId: string): Promise<Job[]> {
  return db
    .select()
    .from(job)
    .where(and(eq(job.scheduleId, scheduleId), not(isOneOf(job.state, terminalStates))))
    .orderBy(asc(job.id));
}

/** Reads the database's clock, the only clock that decides whether a schedule is due. */
export async function readClock(db: Db): Promise<Date> {
  const ms = sql<number>`floor(extract(epoch from ${databaseNow}) * 1000)::double precision`;
  const [row] = await db.select({ ms }).from(sql`(select 1) as one`);
  if (!row) throw new Error('The database told no time.');
  return new Date(row.ms);
}
