// Streams over many jobs: rows in the order of the transactions that wrote them, read up to the oldest one still open.
// Numbers and times are given before the commit, so a reader that goes by them steps over the row of a slower writer;
// below this horizon nothing is still to come.
import { type SQL, sql } from 'drizzle-orm';
import type { PgColumn } from 'drizzle-orm/pg-core';
import { channels } from '../bus/bus.ts';
import type { Db } from '../database/database.ts';
import type { Tx } from './commit.ts';

/**
 * The oldest transaction that is still open, or the next one: rows with a smaller `changed` are all visible to a query
 * that starts after this one, and no more will come. It never goes down.
 */
export async function readHorizon(db: Db): Promise<number> {
  const [row] = await db.execute<{ horizon: string }>(
    sql`select pg_snapshot_xmin(pg_current_snapshot())::text as horizon`,
  );
  if (!row) throw new Error('A select returned no row.');
  return Number(row.horizon);
}

/** Whether a row was written by a transaction that this server has not begun: the row came with a dump of another one. */
export function aheadOfServer(changed: PgColumn): SQL {
  return sql`${changed} >= pg_snapshot_xmax(pg_current_snapshot())`;
}

/** After the commit, notifies followers of the project, and of all projects, that this transaction changed rows. */
export function notifyProject(tx: Tx, projectId: string, changed: string): void {
  const heads = { changed: Number(changed) };
  tx.notify(channels.project(projectId), heads);
  tx.notify(channels.projects, heads);
}

/** A whole number as text of 16 digits, so that texts sort as their numbers do. */
export function orderedText(number: number): string {
  return String(number).padStart(16, '0');
}
