// Tables of schedules and of the decisions on their due times. The unique constraints here and on
// `job` allow one job per due time, however many gateways try.
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
    /**
     * Version of the defaults for its jobs: the one that the template names, or the one that
     * was current at its creation.
     */
    defaultsVersion: text().notNull(),
    pausedAt: instant(),
    /**
     * The first due time that is not decided; unchanged while the schedule is paused. Null when
     * none will come.
     */
    nextDueAt: instant(),
    /** Id of the token that created the schedule. */
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

/**
 * The decision on a due time. When many in a row were skipped for one reason, one row holds them
 * all.
 */
export const scheduleRun = pgTable(
  'schedule_run',
  {
    scheduleId: text()
      .notNull()
      .references(() => schedule.id, { onDelete: 'cascade' }),
    /** The due time, or the first of several. */
    dueAt: instant().notNull(),
    /** The last due time of the row; equals `dueAt` for a single one. */
    lastDueAt: instant().notNull(),
    /** Id of the submitted job; null for a skip. */
    jobId: text(),
    /** Reason of a skip; null for a submitted job. */
    reasonCode: text(),
    reasonMessage: text(),
    decidedAt: instant().notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.scheduleId, table.dueAt] }),
    check('schedule_run_outcome', sql`(${table.jobId} is null) = (${table.reasonCode} is not null)`),
  ],
);
