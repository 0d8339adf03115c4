// Secrets: one row for each name of a project, with only the current value, encrypted by
// `cipher.ts`.
import { sql } from 'drizzle-orm';
import { check, integer, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { bytes, instant, now } from '../database/columns.ts';
import { project } from '../project/table.ts';

export const secret = pgTable(
  'secret',
  {
    id: text().primaryKey(),
    projectId: text()
      .notNull()
      .references(() => project.id),
    name: text().notNull(),
    /** 1, 2, 3 …: grows each time the value is set. */
    version: integer().notNull(),
    /** Id of the gateway's key that wraps the data key. */
    keyId: text().notNull(),
    /** The data key of this version, encrypted with the gateway's key. */
    wrappedKey: bytes().notNull(),
    /** The value, encrypted with the data key. */
    sealedValue: bytes().notNull(),
    createdAt: instant().notNull().default(now),
    updatedAt: instant().notNull().default(now),
    /** Time at which a runner last received the value; null for never. */
    lastUsedAt: instant(),
  },
  (table) => [
    uniqueIndex('secret_project_name').on(table.projectId, table.name),
    check('secret_version', sql`${table.version} > 0`),
  ],
);
