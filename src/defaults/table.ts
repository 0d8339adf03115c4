// Published versions of the defaults, and which one is current: a fact that only an administrator's act moves.
import { sql } from 'drizzle-orm';
import { boolean, check, jsonb, pgTable, text } from 'drizzle-orm/pg-core';
import { instant, now } from '../database/columns.ts';

export const defaultsVersion = pgTable('defaults_version', {
  version: text().primaryKey(),
  /** Values by path: those that the documentation lists, and those of the platform. */
  documented: jsonb().$type<Record<string, unknown>>().notNull(),
  platform: jsonb().$type<Record<string, unknown>>().notNull(),
  /** SHA-256, in hex, of the canonical values. */
  hash: text().notNull(),
  notes: text(),
  publishedAt: instant().notNull().default(now),
  /** Token that published it; null for the versions that come with the software. */
  publishedBy: text(),
});

/** One row. */
export const defaultsCurrent = pgTable(
  'defaults_current',
  {
    only: boolean().primaryKey().default(true),
    version: text()
      .notNull()
      .references(() => defaultsVersion.version),
    changedAt: instant().notNull().default(now),
  },
  (table) => [check('defaults_current_only', sql`${table.only}`)],
);
