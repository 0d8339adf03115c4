// Attempts: the runner and lease of each run of a job, its end, and the number of its records that
// are stored.
import { sql } from 'drizzle-orm';
import { bigint, boolean, check, index, integer, jsonb, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { instant, now } from '../database/columns.ts';
import type { JobState, ReasonCode } from '../job/state.ts';
import { job } from '../job/table.ts';
import { runner } from '../runner/table.ts';

export const attempt = pgTable(
  'attempt',
  {
    id: text().primaryKey(),
    jobId: text()
      .notNull()
      .references(() => job.id),
    /** Number within the job, from 1. */
    number: integer().notNull(),
    runnerId: text()
      .notNull()
      .references(() => runner.id),
    /** Request of the claim that the attempt answers: a repeated claim gets the same attempt. */
    requestId: text().notNull(),
    /** The fence: only batches with this token are stored, and only until the attempt has ended. */
    leaseToken: text().notNull(),
    leaseExpiresAt: instant().notNull(),
    gpus: integer().array().notNull(),
    state: text().$type<JobState>().notNull(),
    reasonCode: text().$type<ReasonCode>(),
    reasonMessage: text(),
    reasonHint: text(),
    /** The last log lines of an attempt that failed. */
    logExcerpt: jsonb().$type<string[]>().notNull().default([]),
    exitCode: integer(),
    signal: text(),
    /** Every record up to this number is stored. */
    mark: bigint({ mode: 'number' }).notNull().default(0),
    /**
     * Number of stored output lines and the CRC-32 of their texts, compared at the end with those
     * of the runner.
     */
    lines: bigint({ mode: 'number' }).notNull().default(0),
    linesCrc: bigint({ mode: 'number' }).notNull().default(0),
    createdAt: instant().notNull().default(now),
    startedAt: instant(),
    finishedAt: instant(),
    /** Time of the database's clock by which the command must run; null for no limit. */
    startExpiresAt: instant(),
  },
  (table) => [
    uniqueIndex('attempt_number').on(table.jobId, table.number),
    uniqueIndex('attempt_request').on(table.runnerId, table.requestId),
    uniqueIndex('attempt_one_active')
      .on(table.jobId)
      .where(sql`${table.finishedAt} is null`),
    index('attempt_active')
      .on(table.runnerId)
      .where(sql`${table.finishedAt} is null`),
    index('attempt_start_expires')
      .on(table.startExpiresAt)
      .where(sql`${table.state} = 'STARTING' and ${table.finishedAt} is null`),
  ],
);

/**
 * A table of one row. Each transaction that places a job locks it, for milliseconds, so that
 * placements happen one after the other.
 */
export const placement = pgTable(
  'placement',
  {
    only: boolean().primaryKey().default(true),
    /** Number of jobs placed since the last turn of the job that waited longest. */
    sinceOldest: integer().notNull().default(0),
  },
  (table) => [check('placement_only', sql`${table.only}`)],
);
