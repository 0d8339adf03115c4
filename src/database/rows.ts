// Many rows as one parameter. The text of the statement is the same for any number of rows, so that it is prepared once,
// and to make it does not cost as much as there are values.
import { getTableColumns, type SQL, sql } from 'drizzle-orm';
import { toSnakeCase } from 'drizzle-orm/casing';
import type { PgTable } from 'drizzle-orm/pg-core';

/**
 * `insert into … select …` of rows with the names of the table's columns, in the order given; what comes behind it, e.g.
 * `returning`, can be added. What no row holds gets the column's default, what only some hold is null in the others. `computed`
 * columns are expressions over the others. Bytes are no JSON and cannot be given so.
 */
export function insertRows<Table extends PgTable>(
  table: Table,
  rows: readonly Partial<Table['$inferInsert']>[],
  computed: { [Name in keyof Table['$inferInsert']]?: SQL } = {},
): SQL {
  const names = Object.keys(getTableColumns(table)).filter((name) => rows.some((row) => name in row));
  const columns = names.map((name) => [name, toSnakeCase(name)] as const);
  const json = rows.map((row: Record<string, unknown>) =>
    Object.fromEntries(columns.map(([name, column]) => [column, storable(row[name])])),
  );
  const list = columns.map(([, column]) => sql.identifier(column));
  const more = Object.entries(computed) as [string, SQL][];
  const into = sql.join([...list, ...more.map(([name]) => sql.identifier(toSnakeCase(name)))], sql`, `);
  const from = sql.join([...list, ...more.map(([, value]) => value)], sql`, `);
  return sql`insert into ${table} (${into}) select ${from} from jsonb_populate_recordset(null::${table}, ${JSON.stringify(json)}::jsonb)`;
}

/** As a parameter of its own, text is stored with a replacement for half a surrogate pair; JSON would be refused. */
function storable(value: unknown): unknown {
  return typeof value === 'string' ? value.toWellFormed() : (value ?? null);
}
