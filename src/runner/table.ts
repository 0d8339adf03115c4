// Machines that signed on to run jobs.
import { index, integer, jsonb, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { instant, now } from '../database/columns.ts';
import type { Gpu } from '../protocol/control.ts';

export const runner = pgTable(
  'runner',
  {
    id: text().primaryKey(),
    /** Unique for the token that it signs on with: a restarted runner is the same one. */
    name: text().notNull(),
    tokenId: text().notNull(),
    /** Projects whose jobs it takes, those of its token; null for all. */
    projectIds: text().array(),
    gpus: jsonb().$type<Gpu[]>().notNull(),
    labels: text().array().notNull(),
    /** Attempts that it runs at once; null for a runner of an older build, which does not say: it has the default. */
    places: integer(),
    version: text().notNull(),
    bootId: text().notNull(),
    createdAt: instant().notNull().default(now),
    /** Written every 5 s at most. */
    lastSeenAt: instant().notNull().default(now),
    /** When it last asked for work, written every 5 s at most; null until then. */
    claimedAt: instant(),
    /** Since when it takes no more jobs and lets its own end; null while it takes some. */
    drainingAt: instant(),
  },
  (table) => [uniqueIndex('runner_name').on(table.tokenId, table.name), index('runner_seen').on(table.lastSeenAt)],
);
