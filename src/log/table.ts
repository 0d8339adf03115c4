// Log lines, in chunks: the lines that one batch brought are one row. A row a line cost 3.5 times as much to store.
import { bigint, index, integer, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { bytes, instant } from '../database/columns.ts';
import { job } from '../job/table.ts';

export const logChunk = pgTable(
  'log_chunk',
  {
    jobId: text()
      .notNull()
      .references(() => job.id),
    /** Numbers of the first and last line; between two chunks of a job no number is missing unless lines are. */
    first: bigint({ mode: 'number' }).notNull(),
    last: bigint({ mode: 'number' }).notNull(),
    attempt: integer().notNull(),
    firstTime: instant().notNull(),
    lastTime: instant().notNull(),
    /** JSON, one array a line: [time, stream, text, truncated]; a gap is [time, lines, reason]. See `packBytes`. */
    body: bytes().notNull(),
    /** Bytes of the JSON: what counts against the limit of a log. */
    size: integer().notNull().default(0),
  },
  (table) => [primaryKey({ columns: [table.jobId, table.first] }), index('log_chunk_last').on(table.jobId, table.last)],
);
