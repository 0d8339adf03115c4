// Keyset pages: rows after or before a position in an order, found by comparing whole rows. A page
// costs the same at any depth, and a row that moves is neither repeated nor lost within it.
import { asc, desc, type SQL, sql } from 'drizzle-orm';
import type { PgColumn } from 'drizzle-orm/pg-core';

type Position = readonly unknown[];

/** A part of the order: a column, or an expression over columns that may be null. */
export type Key = PgColumn | { readonly expression: SQL; readonly type: string };

export type Keyset = {
  where: SQL[];
  orderBy: SQL[];
  limit: number;
  /** Puts rows that were read backward into the order of the stream. */
  inOrder<T>(rows: T[]): T[];
};

/**
 * Makes the conditions of a page: one row more than `limit`, from the end when `backward`. The keys
 * are unique together, and all ascend or all descend.
 */
export function keyset(
  keys: readonly Key[],
  options: { descending: boolean; backward: boolean; limit: number; after?: Position; before?: Position },
): Keyset {
  const columns = keys.map((key) => ('expression' in key ? key : { expression: sql`${key}`, type: key.getSQLType() }));
  const expressions = columns.map(({ expression }) => expression);
  const row = sql`(${sql.join(expressions, sql`, `)})`;
  const beyond = (position: Position, greater: boolean) =>
    sql`${row} ${greater ? sql`>` : sql`<`} (${sql.join(
      position.map((value, index) => sql`${value}::${sql.raw(columns[index]?.type ?? 'text')}`),
      sql`, `,
    )})`;
  const { descending, backward } = options;
  return {
    where: [
      ...(options.after ? [beyond(options.after, !descending)] : []),
      ...(options.before ? [beyond(options.before, descending)] : []),
    ],
    orderBy: expressions.map((key) => (descending === backward ? asc(key) : desc(key))),
    limit: options.limit + 1,
    inOrder: (rows) => (backward ? rows.toReversed() : rows),
  };
}
