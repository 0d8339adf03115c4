// Many rows, or many values, as one parameter. The text of the statement is the same for any number of them, so that it is
// prepared once, and no input comes near the 65,534 parameters that a statement can have.
import { getTableColumns, type SQL, sql } from 'drizzle-orm';
import { toSnakeCase } from 'drizzle-orm/casing';
import type { PgColumn, PgTable } from 'drizzle-orm/pg-core';

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

/**
 * Whether the column holds one of these values: `in (…)` with one parameter. Drizzle's `inArray` sends one for each value,
 * and a list from a request or a batch may have more values than a statement can have parameters.
 */
export function isOneOf<Column extends PgColumn>(column: Column, values: Iterable<Column['_']['data'] & Plain>): SQL {
  return sql`${column} = any(${arrayText(values)}::${sql.raw(column.getSQLType())}[])`;
}

/** Values whose text is that of Postgres. */
type Plain = string | number;

/** An array as Postgres reads it. */
function arrayText(values: Iterable<Plain>): string {
  const items = Array.from(values, (value) => `"${String(value).replace(/["\\]/g, '\\$&')}"`);
  return `{${items.join(',')}}`;
}
