// Runners: machines that registered to run jobs.
import { index, integer, jsonb, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { instant, now } from '../database/columns.ts';
import type { Gpu } from '../protocol/control.ts';

export const runner = pgTable(
  'runner',
  {
    id: text().primaryKey(),
    /** Unique for its token: a restarted runner is the same one. */
    name: text().notNull(),
    tokenId: text().notNull(),
    /** Projects whose jobs the runner takes, from its token; null for all. */
    projectIds: text().array(),
    gpus: jsonb().$type<Gpu[]>().notNull(),
    labels: text().array().notNull(),
    /**
     * Number of attempts that it runs at once; null for a runner of an older build, which does not
     * tell it and gets the default.
     */
    places: integer(),
    version: text().notNull(),
    bootId: text().notNull(),
    createdAt: instant().notNull().default(now),
    /** Time of the last request; written every 5 s at most. */
    lastSeenAt: instant().notNull().default(now),
    /** Time of the last claim, written every 5 s at most; null before the first. */
    claimedAt: instant(),
    /**
     * Time since which the runner takes no more jobs, while its own end; null while it takes jobs.
     */
    drainingAt: instant(),
  },
  (table) => [uniqueIndex('runner_name').on(table.tokenId, table.name), index('runner_seen').on(table.lastSeenAt)],
);
