// Streams over many jobs, e.g. all events of a project. Their rows stand in the order of the
// transactions that wrote them. A reader stops at the horizon, the oldest transaction that is still
// open: serial numbers and times are given out before the commit, so a reader that went by them
// could step over the row of a transaction that commits later.
import { type SQL, sql } from 'drizzle-orm';
import type { PgColumn } from 'drizzle-orm/pg-core';
import { channels } from '../bus/bus.ts';
import type { Db } from '../database/database.ts';
import type { Tx } from './commit.ts';
import { cursorInvalid, decodeCursor, isCount } from './cursor.ts';

/**
 * Returns the horizon: the id of the oldest open transaction, or of the next one when none is open.
 * A query that starts after this one sees all rows whose `changed` is smaller, and no such row is
 * added later. The horizon never goes down.
 */
export async function readHorizon(db: Db): Promise<number> {
  const [row] = await db.execute<{ horizon: string }>(
    sql`select pg_snapshot_xmin(pg_current_snapshot())::text as horizon`,
  );
  if (!row) throw new Error('A select returned no row.');
  return Number(row.horizon);
}

/**
 * SQL condition: `changed` names a transaction that this Postgres server has not begun. Such a row
 * came with a dump of another server, which counted its transactions further.
 */
export function aheadOfServer(changed: PgColumn): SQL {
  return sql`${changed} >= pg_snapshot_xmax(pg_current_snapshot())`;
}

/**
 * After the commit of `tx`, tells followers of the project and of all projects that the transaction
 * `changed` (its id, as text) wrote rows.
 */
export function notifyProject(tx: Tx, projectId: string, changed: string): void {
  const heads = { changed: Number(changed) };
  tx.notify(channels.project(projectId), heads);
  tx.notify(channels.projects, heads);
}

/**
 * Position in a stream over many jobs: the transaction, the job, and a number within the job, e.g.
 * that of an event.
 */
type HorizonPosition = readonly [changed: number, jobId: string, number: number];

/**
 * Writes a position as text. The texts sort as the positions do, so that a shared reader can
 * compare them.
 */
export function positionToText([changed, jobId, number]: HorizonPosition): string {
  return [orderedText(changed), jobId, orderedText(number)].join(' ');
}

export function positionFromText(text: string): HorizonPosition {
  const [changed, jobId = '', number] = text.split(' ');
  return [Number(changed), jobId, Number(number)];
}

/**
 * Returns the position of a cursor. Throws CURSOR_INVALID also for one beyond the horizon: it comes
 * from another database, and no row would follow it.
 */
export function decodePosition(stream: string, cursor: string, horizon: number): HorizonPosition {
  const [changed, jobId, number, ...rest] = decodeCursor(stream, cursor);
  if (!isCount(changed) || changed > horizon || typeof jobId !== 'string' || !isCount(number) || rest.length > 0) {
    throw cursorInvalid();
  }
  return [changed, jobId, number];
}

/**
 * Returns a whole number as text of 16 digits, so that such texts sort as their numbers do: 7
 * becomes `0000000000000007`.
 */
function orderedText(number: number): string {
  return String(number).padStart(16, '0');
}
