// Policies: one row for each revision, never changed. Revision 0, the empty policy of a new
// project, has no row.
import { sql } from 'drizzle-orm';
import { check, integer, jsonb, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { instant, now } from '../database/columns.ts';
import type { PolicyRule } from '../errors.ts';
import { project } from '../project/table.ts';

export const policy = pgTable(
  'policy',
  {
    projectId: text()
      .notNull()
      .references(() => project.id),
    /** 1, 2, 3 … without a gap. */
    revision: integer().notNull(),
    /** Ordered by path, one rule for each path. */
    rules: jsonb().$type<PolicyRule[]>().notNull(),
    createdAt: instant().notNull().default(now),
    /** Id of the token that set it. */
    createdBy: text(),
  },
  (table) => [
    primaryKey({ columns: [table.projectId, table.revision] }),
    check('policy_revision', sql`${table.revision} > 0`),
  ],
);
