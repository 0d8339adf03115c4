// Attempts: who runs a job now, until when, how it ended, and how much of what it said is committed.
import { sql } from 'drizzle-orm';
import { bigint, boolean, check, index, integer, jsonb, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { instant, now } from '../database/columns.ts';
import { job } from '../job/table.ts';
import type { JobState, ReasonCode } from '../job/state.ts';
import { runner } from '../runner/table.ts';

export const attempt = pgTable(
  'attempt',
  {
    id: text().primaryKey(),
    jobId: text()
      .notNull()
      .references(() => job.id),
    /** 1 is the first. */
    number: integer().notNull(),
    runnerId: text()
      .notNull()
      .references(() => runner.id),
    /** The claim that it answers: a repeated claim gets the same attempt. */
    requestId: text().notNull(),
    /** The fence: only who holds it may write, and only until the attempt has ended. */
    leaseToken: text().notNull(),
    leaseExpiresAt: instant().notNull(),
    gpus: integer().array().notNull(),
    state: text().$type<JobState>().notNull(),
    reasonCode: text().$type<ReasonCode>(),
    reasonMessage: text(),
    reasonHint: text(),
    /** Its last lines, when it failed. */
    logExcerpt: jsonb().$type<string[]>().notNull().default([]),
    exitCode: integer(),
    signal: text(),
    /** High-water mark: every record up to this number is stored. */
    mark: bigint({ mode: 'number' }).notNull().default(0),
    /** Lines stored and the CRC-32 of their texts, to compare with what the runner counted. */
    lines: bigint({ mode: 'number' }).notNull().default(0),
    linesCrc: bigint({ mode: 'number' }).notNull().default(0),
    createdAt: instant().notNull().default(now),
    startedAt: instant(),
    finishedAt: instant(),
    /** Its command must run by this moment of the database's clock; null for no limit. */
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

/** One row: whoever places a job locks it, for milliseconds. */
export const placement = pgTable(
  'placement',
  {
    only: boolean().primaryKey().default(true),
    /** Jobs that were placed since it was the turn of the one that waited longest. */
    sinceOldest: integer().notNull().default(0),
  },
  (table) => [check('placement_only', sql`${table.only}`)],
);
