// The schedules that a token created. They act for themselves, so that they outlive it.
import { and, asc, eq } from 'drizzle-orm';
import type { Actor } from '../actor.ts';
import type { Db } from '../database/database.ts';
import type { Schedule } from './schedule.ts';
import { schedule } from './table.ts';

/** Those that the actor can see, at most 100. */
export async function listSchedulesOf(db: Db, actor: Actor, tokenId: string): Promise<Schedule[]> {
  if (!actor.scopes.has('READ')) return [];
  const visible = actor.projectId === null ? undefined : eq(schedule.projectId, actor.projectId);
  const rows = db
    .select()
    .from(schedule)
    .where(and(eq(schedule.createdBy, tokenId), visible));
  return rows.orderBy(asc(schedule.id)).limit(100);
}
