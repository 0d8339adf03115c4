// Projects, and the access tokens that open them.
import { sql } from 'drizzle-orm';
import { check, index, jsonb, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { instant, now } from '../database/columns.ts';

export const project = pgTable(
  'project',
  {
    /** Key chosen at creation, e.g. `p-demo`. */
    id: text().primaryKey(),
    name: text().notNull(),
    /** Command of jobs that give none, as an argument vector. */
    command: jsonb().$type<string[]>(),
    createdAt: instant().notNull().default(now),
    /** Since when it is read-only; null while it is active. */
    archivedAt: instant(),
  },
  (table) => [check('project_id', sql`${table.id} ~ '^p-[a-z0-9][a-z0-9-]{0,61}$'`)],
);

export const accessToken = pgTable(
  'access_token',
  {
    id: text().primaryKey(),
    /** Null for a token of the whole platform. */
    projectId: text().references(() => project.id),
    /** Projects whose jobs a token of scope RUNNER may claim; null for all. Never changed: runners keep a copy. */
    runnerProjectIds: text().array(),
    name: text().notNull(),
    /** First characters, to recognise it by. */
    prefix: text().notNull(),
    /** SHA-256 of the text, in hex; the text itself is kept nowhere. */
    hash: text().notNull(),
    scopes: text().array().notNull(),
    createdAt: instant().notNull().default(now),
    expiresAt: instant(),
    /** Written at most once a minute. */
    lastUsedAt: instant(),
    /** Since when it opens nothing; the row stays, for what it did. */
    revokedAt: instant(),
  },
  (table) => [uniqueIndex('access_token_hash').on(table.hash), index('access_token_project').on(table.projectId)],
);
