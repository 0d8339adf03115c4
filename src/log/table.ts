// Table `log_chunk`: the lines of one batch make one row. One row per line took 3.5 times the
// space.
import { bigint, index, integer, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { bytes, instant } from '../database/columns.ts';
import { job } from '../job/table.ts';

export const logChunk = pgTable(
  'log_chunk',
  {
    jobId: text()
      .notNull()
      .references(() => job.id),
    /**
     * Numbers of the first and the last line. A number between two chunks of a job is that of a
     * removed line.
     */
    first: bigint({ mode: 'number' }).notNull(),
    last: bigint({ mode: 'number' }).notNull(),
    attempt: integer().notNull(),
    firstTime: instant().notNull(),
    lastTime: instant().notNull(),
    /**
     * JSON, one array per line: [time, stream, text, truncated], or [time, lines, reason] for a
     * gap. Compressed by `packBytes`.
     */
    body: bytes().notNull(),
    /** Bytes of the JSON before compression, which count against the log limit of the job. */
    size: integer().notNull().default(0),
  },
  (table) => [primaryKey({ columns: [table.jobId, table.first] }), index('log_chunk_last').on(table.jobId, table.last)],
);
