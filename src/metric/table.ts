// Tables of metrics: a summary for each metric, its windows, and every reported point.
import { sql } from 'drizzle-orm';
import { bigint, boolean, index, integer, jsonb, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { bytes } from '../database/columns.ts';
import { job } from '../job/table.ts';
import type { Aggregate, StoredValue } from './window.ts';

/** One reported value as stored JSON; `time` in milliseconds since the Unix epoch. */
export type StoredPoint = {
  step: number | null;
  epoch: number | null;
  time: number;
  value: StoredValue;
  attempt: number;
};

const jobId = () =>
  text()
    .notNull()
    .references(() => job.id);

export const metric = pgTable(
  'metric',
  {
    jobId: jobId(),
    name: text().notNull(),
    count: bigint({ mode: 'number' }).notNull(),
    last: jsonb().$type<StoredPoint>().notNull(),
    /** Points with the smallest and the largest finite value. */
    min: jsonb().$type<StoredPoint>(),
    max: jsonb().$type<StoredPoint>(),
  },
  (table) => [primaryKey({ columns: [table.jobId, table.name] })],
);

export const metricWindow = pgTable(
  'metric_window',
  {
    jobId: jobId(),
    name: text().notNull(),
    attempt: integer().notNull(),
    /** Length in seconds. */
    seconds: integer().notNull(),
    /** Seconds since the Unix epoch; a multiple of the length. */
    start: bigint({ mode: 'number' }).notNull(),
    state: jsonb().$type<Aggregate>().notNull(),
    revision: integer().notNull(),
    /**
     * Number of the change that made this revision. Changes of all windows of a job are counted
     * together, so it is a position in the stream of its windows.
     */
    change: bigint({ mode: 'number' }).notNull(),
    closed: boolean().notNull(),
    /** Whether the windows of `metricTier` include this revision. */
    rolled: boolean().notNull().default(false),
  },
  (table) => [
    primaryKey({ columns: [table.jobId, table.name, table.attempt, table.seconds, table.start] }),
    index('metric_window_change').on(table.jobId, table.change),
    index('metric_window_order').on(table.jobId, table.name, table.start, table.attempt),
    index('metric_window_unrolled')
      .on(table.jobId, table.name, table.attempt, table.start)
      .where(sql`not ${table.rolled}`),
  ],
);

/** Windows of five minutes and of an hour, merged from the job's own windows by `tier.ts`. */
export const metricTier = pgTable(
  'metric_tier',
  {
    jobId: jobId(),
    name: text().notNull(),
    attempt: integer().notNull(),
    seconds: integer().notNull(),
    start: bigint({ mode: 'number' }).notNull(),
    state: jsonb().$type<Aggregate>().notNull(),
    /**
     * Sum of the revisions of the job's own windows that were merged into this one; `change` is
     * their highest change.
     */
    revision: integer().notNull(),
    change: bigint({ mode: 'number' }).notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.jobId, table.name, table.seconds, table.start, table.attempt] }),
    index('metric_tier_change').on(table.jobId, table.seconds, table.change),
  ],
);

/** Points, one row for each batch: a JSON list of [name, value, step, epoch, time]. */
export const metricChunk = pgTable(
  'metric_chunk',
  {
    jobId: jobId(),
    attempt: integer().notNull(),
    /** Number of the batch's first record in the attempt's stream of records. */
    first: bigint({ mode: 'number' }).notNull(),
    body: bytes().notNull(),
  },
  (table) => [primaryKey({ columns: [table.jobId, table.attempt, table.first] })],
);
