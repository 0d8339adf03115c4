// Idempotency keys: which object a keyed mutation made, and what its input was.
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
    /** The input as sent, to tell which paths differ. */
    input: jsonb().notNull(),
    objectId: text().notNull(),
    createdAt: instant().notNull().default(now),
  },
  (table) => [primaryKey({ columns: [table.scope, table.mutation, table.key] })],
);
