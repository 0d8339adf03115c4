// Events: an actor did something to a job or project. Every mutation and every change of a job's
// state writes one.
import { bigint, index, jsonb, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { changed, instant, now } from '../database/columns.ts';

export const event = pgTable(
  'event',
  {
    id: text().primaryKey(),
    /** Null for an event of the whole platform. */
    projectId: text(),
    /** Null for an event of a project. */
    jobId: text(),
    /** Number within the job, 1, 2, 3 …, given under the job's lock; null without a job. */
    seq: bigint({ mode: 'number' }),
    type: text().notNull(),
    time: instant().notNull().default(now),
    /** Token, schedule or runner that caused it; null for the system. */
    actorId: text(),
    message: text().notNull(),
    fromState: text(),
    toState: text(),
    data: jsonb(),
    changed: changed(),
  },
  (table) => [
    uniqueIndex('event_job').on(table.jobId, table.seq),
    // The order of a project's stream; events of one job that one transaction wrote keep their
    // order.
    index('event_project_order').on(table.projectId, table.changed, table.jobId, table.seq),
  ],
);
