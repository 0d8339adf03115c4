// Streams over many jobs: rows in the order of the transactions that wrote them, read up to the oldest one still open.
// Numbers and times are given before the commit, so a reader that goes by them steps over the row of a slower writer;
// below this horizon nothing is still to come.
import { type SQL, sql } from 'drizzle-orm';
import type { PgColumn } from 'drizzle-orm/pg-core';
import { channels } from '../bus/bus.ts';
import type { Db } from '../database/database.ts';
import type { Tx } from './commit.ts';
import { cursorInvalid, decodeCursor, isCount } from './cursor.ts';

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

/** Position in a stream over many jobs. `number` is the stream's own, e.g. that of an event. */
type HorizonPosition = readonly [changed: number, jobId: string, number: number];

/** A position as text. Texts sort as positions do, so that a shared reader can compare them. */
export function positionToText([changed, jobId, number]: HorizonPosition): string {
  return [orderedText(changed), jobId, orderedText(number)].join(' ');
}

export function positionFromText(text: string): HorizonPosition {
  const [changed, jobId = '', number] = text.split(' ');
  return [Number(changed), jobId, Number(number)];
}

/**
 * Position of a cursor. Throws CURSOR_INVALID also for one beyond the horizon: it comes from another
 * database, and no row would follow it.
 */
export function decodePosition(stream: string, cursor: string, horizon: number): HorizonPosition {
  const [changed, jobId, number, ...rest] = decodeCursor(stream, cursor);
  if (!isCount(changed) || changed > horizon || typeof jobId !== 'string' || !isCount(number) || rest.length > 0) {
    throw cursorInvalid();
  }
  return [changed, jobId, number];
}

/** A whole number as text of 16 digits, so that texts sort as their numbers do. */
function orderedText(number: number): string {
  return String(number).padStart(16, '0');
}
