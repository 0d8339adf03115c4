// Passes many rows, or many values, as one parameter. The text of the statement is then the same
// for any number, so it is prepared once, and the limit of 65,534 parameters of a statement is
// never reached.
import { getTableColumns, type SQL, sql } from 'drizzle-orm';
import { toSnakeCase } from 'drizzle-orm/casing';
import type { PgColumn, PgTable } from 'drizzle-orm/pg-core';

/**
 * Builds `insert into … select …` for rows, in their order; the caller may add e.g. `returning`. A
 * column that no row holds gets its default; one that only some rows hold is null in the others.
 * `computed` columns are SQL expressions over the other columns. The rows travel as JSON, which
 * cannot hold bytes.
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

/**
 * Text with half a surrogate pair is stored with a replacement character, as the driver does with a
 * plain parameter; inside of JSON, Postgres would refuse it.
 */
function storable(value: unknown): unknown {
  return typeof value === 'string' ? value.toWellFormed() : (value ?? null);
}

/**
 * SQL condition: the column holds one of these values, as `= any(…)` with one parameter. Drizzle's
 * `inArray` sends a parameter for each value, and a list from a request may be longer than a
 * statement's limit.
 */
export function isOneOf<Column extends PgColumn>(column: Column, values: Iterable<Column['_']['data'] & Plain>): SQL {
  return sql`${column} = any(${arrayText(values)}::${sql.raw(column.getSQLType())}[])`;
}

/** Values whose JavaScript text is also their text in Postgres. */
type Plain = string | number;

/** Writes an array as a Postgres literal, e.g. `{"a","b"}`. */
function arrayText(values: Iterable<Plain>): string {
  const items = Array.from(values, (value) => `"${String(value).replace(/["\\]/g, '\\$&')}"`);
  return `{${items.join(',')}}`;
}
