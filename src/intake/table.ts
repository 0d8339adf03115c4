// Records that the database refused, kept whole until a gateway can store them or 30 days have passed.
import { bigint, index, integer, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { bytes, instant, now } from '../database/columns.ts';
import { job } from '../job/table.ts';

export const refusedRecord = pgTable(
  'refused_record',
  {
    attemptId: text().notNull(),
    /** Number of the record within its attempt. */
    number: bigint({ mode: 'number' }).notNull(),
    jobId: text()
      .notNull()
      .references(() => job.id),
    projectId: text().notNull(),
    /** Number of the attempt within its job. */
    attempt: integer().notNull(),
    /**
     * Number of the log line that shows the gap in place of the record; null when the log could not
     * be written either.
     */
    seq: bigint({ mode: 'number' }),
    /** The record as JSON, as its runner sent it. See `packBytes`. */
    record: bytes().notNull(),
    reason: text().notNull(),
    refusedAt: instant().notNull().default(now),
  },
  (table) => [
    primaryKey({ columns: [table.attemptId, table.number] }),
    index('refused_record_job').on(table.jobId),
    index('refused_record_project').on(table.projectId),
    index('refused_record_time').on(table.refusedAt),
  ],
);
