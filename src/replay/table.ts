// Idempotency keys: the object that a mutation with a key made, and its input.
import { jsonb, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { instant, now } from '../database/columns.ts';

export const idempotencyKey = pgTable(
  'idempotency_key',
  {
    /** Project of the mutation; `*` for the whole platform. */
    scope: text().notNull(),
    mutation: text().notNull(),
    key: text().notNull(),
    /** SHA-256, in hex, of the canonical input. */
    fingerprint: text().notNull(),
    /** The input as sent, to tell the paths that differ. */
    input: jsonb().notNull(),
    objectId: text().notNull(),
    createdAt: instant().notNull().default(now),
  },
  (table) => [primaryKey({ columns: [table.scope, table.mutation, table.key] })],
);
