// Schedules, and what became of each of their due times. The unique constraints here and on `job` are what makes a due
// time submit one job at most, whoever tries.
import { sql } from 'drizzle-orm';
import { check, index, integer, jsonb, pgTable, primaryKey, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { instant, now } from '../database/columns.ts';
import { project } from '../project/table.ts';

export const overlapPolicies = ['ALLOW', 'FORBID', 'REPLACE'] as const;
export type OverlapPolicy = (typeof overlapPolicies)[number];

export const schedule = pgTable(
  'schedule',
  {
    id: text().primaryKey(),
    projectId: text()
      .notNull()
      .references(() => project.id),
    /** Unique in the project. */
    name: text().notNull(),
    cron: text().notNull(),
    timezone: text().notNull(),
    onOverlap: text().$type<OverlapPolicy>().notNull(),
    startingDeadlineSeconds: integer().notNull(),
    /** Template of the jobs, as it was sent. */
    spec: jsonb().$type<Record<string, unknown>>().notNull(),
    /** Defaults that its jobs are resolved with: those of its creation, or those that the template names. */
    defaultsVersion: text().notNull(),
    pausedAt: instant(),
    /** The first due time that is not decided yet; it stands still while the schedule is paused. Null for none to come. */
    nextDueAt: instant(),
    /** Token that created it. */
    createdBy: text(),
    createdAt: instant().notNull().default(now),
    updatedAt: instant().notNull().default(now),
  },
  (table) => [
    uniqueIndex('schedule_project_name').on(table.projectId, table.name),
    index('schedule_due')
      .on(table.nextDueAt, table.id)
      .where(sql`${table.pausedAt} is null`),
    check('schedule_overlap', sql`${table.onOverlap} in ('ALLOW', 'FORBID', 'REPLACE')`),
  ],
);

/** What was decided of a due time, or, when many in a row were skipped for one reason, of all of them. */
export const scheduleRun = pgTable(
  'schedule_run',
  {
    scheduleId: text()
      .notNull()
      .references(() => schedule.id, { onDelete: 'cascade' }),
    /** The due time; of several the first. */
    dueAt: instant().notNull(),
    /** The last due time that the row stands for. */
    lastDueAt: instant().notNull(),
    /** Job that was started; null when it was skipped. */
    jobId: text(),
    /** Why it was skipped; null when it was started. */
    reasonCode: text(),
    reasonMessage: text(),
    decidedAt: instant().notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.scheduleId, table.dueAt] }),
    check('schedule_run_outcome', sql`(${table.jobId} is null) = (${table.reasonCode} is not null)`),
  ],
);
