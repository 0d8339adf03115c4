// Tables of the published versions of the defaults, and of the current one. Only a mutation of an
// administrator changes which one is current.
import { sql } from 'drizzle-orm';
import { boolean, check, jsonb, pgTable, text } from 'drizzle-orm/pg-core';
import { instant, now } from '../database/columns.ts';

export const defaultsVersion = pgTable('defaults_version', {
  version: text().primaryKey(),
  /**
   * Values by path. `documented` holds those that the documentation lists, `platform` the others.
   */
  documented: jsonb().$type<Record<string, unknown>>().notNull(),
  platform: jsonb().$type<Record<string, unknown>>().notNull(),
  /** SHA-256 of the canonical JSON of all values, in hex. */
  hash: text().notNull(),
  notes: text(),
  publishedAt: instant().notNull().default(now),
  /** Id of the token that published the version; null for one that comes with the software. */
  publishedBy: text(),
});

/** Has exactly one row: `only` is always true. */
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
