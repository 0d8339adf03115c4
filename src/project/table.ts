// Tables of projects and of access tokens.
import { sql } from 'drizzle-orm';
import { check, index, jsonb, pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core';
import { instant, now } from '../database/columns.ts';

export const project = pgTable(
  'project',
  {
    /** Key chosen at creation, e.g. `p-demo`. */
    id: text().primaryKey(),
    name: text().notNull(),
    /** Command of jobs whose spec has none, as a list of arguments. */
    command: jsonb().$type<string[]>(),
    createdAt: instant().notNull().default(now),
    /** Time since which the project is archived, i.e. read-only; null while it is active. */
    archivedAt: instant(),
  },
  (table) => [check('project_id', sql`${table.id} ~ '^p-[a-z0-9][a-z0-9-]{0,61}$'`)],
);

export const accessToken = pgTable(
  'access_token',
  {
    id: text().primaryKey(),
    /** Project of the token; null for a token of the whole platform. */
    projectId: text().references(() => project.id),
    /**
     * Projects whose jobs a token of scope RUNNER may claim; null for all. It never changes,
     * because runners keep a copy.
     */
    runnerProjectIds: text().array(),
    name: text().notNull(),
    /** First 12 characters of the text, by which people recognise a token. */
    prefix: text().notNull(),
    /** SHA-256 of the text, in hex; the text itself is stored nowhere. */
    hash: text().notNull(),
    scopes: text().array().notNull(),
    createdAt: instant().notNull().default(now),
    expiresAt: instant(),
    /** Updated at most once a minute. */
    lastUsedAt: instant(),
    /** Time since which the token is refused. The row stays, because events name it. */
    revokedAt: instant(),
  },
  (table) => [uniqueIndex('access_token_hash').on(table.hash), index('access_token_project').on(table.projectId)],
);
