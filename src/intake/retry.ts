// Tries refused records once more when a gateway starts: a newer build may be able to store them. A
// line takes the place of its gap in the log, and points are merged as late ones. The end of an
// attempt stays as it became.
import { setTimeout as sleep } from 'node:timers/promises';
import { and, asc, eq, sql } from 'drizzle-orm';
import { unpackBytes } from '../database/columns.ts';
import { isPassing } from '../database/database.ts';
import { changeJob, type LockedJob } from '../job/job.ts';
import { commit, type Store, type Tx } from '../live/commit.ts';
import { fillGap } from '../log/append.ts';
import type { NewLine } from '../log/log.ts';
import { appendPoints } from '../metric/append.ts';
import { parseRecord } from '../protocol/record.ts';
import { takeRefused } from './refuse.ts';
import { addReported, pointsOf } from './store.ts';
import { refusedRecord } from './table.ts';

type RefusedRow = typeof refusedRecord.$inferSelect;

const rowsPerPage = 100;
/**
 * Pause between two records, so that other batches are stored in between: at most 100 tries a
 * second.
 */
const pauseMs = 10;

/**
 * Tries each refused record once, in the order of their attempts, and resolves to the number of
 * those that were stored. A record that fails again stays refused. Rejects when the database is
 * away.
 */
export async function retryRefused(store: Store, maxMetricNames: number, signal: AbortSignal): Promise<number> {
  let stored = 0;
  let last = { attemptId: '', number: 0 };
  while (!signal.aborted) {
    const rows = await store.database.db
      .select()
      .from(refusedRecord)
      .where(sql`(${refusedRecord.attemptId}, ${refusedRecord.number}) > (${last.attemptId}, ${last.number}::bigint)`)
      .orderBy(asc(refusedRecord.attemptId), asc(refusedRecord.number))
      .limit(rowsPerPage);
    for (const row of rows) {
      if (signal.aborted) return stored;
      const isStored = await commit(store, (tx) => retryOne(tx, row, maxMetricNames)).catch((error: unknown) => {
        if (isPassing(error)) throw error;
        return false;
      });
      if (isStored) stored++;
      last = row;
      await sleep(pauseMs, undefined, { signal }).catch(() => {});
    }
    if (rows.length < rowsPerPage) return stored;
  }
  return stored;
}

async function retryOne(tx: Tx, row: RefusedRow, maxMetricNames: number): Promise<boolean> {
  const isStored = await changeJob(tx, row.jobId, async (locked) => {
    if (!(await isStillRefused(tx, row)) || !(await storeLate(tx, locked, row, maxMetricNames))) return false;
    return takeRefused(tx, row.attemptId, row.number);
  });
  return isStored ?? false;
}

/**
 * Whether the record is still refused: another gateway may have stored it before this one had
 * locked its job.
 */
async function isStillRefused(tx: Tx, { attemptId, number }: RefusedRow): Promise<boolean> {
  const rows = await tx
    .select({ number: refusedRecord.number })
    .from(refusedRecord)
    .where(and(eq(refusedRecord.attemptId, attemptId), eq(refusedRecord.number, number)));
  return rows.length > 0;
}

/**
 * Stores a record behind the records that came after it. Returns false for one that is useless by
 * now (e.g. a progress), or still unreadable.
 */
async function storeLate(
  tx: Tx,
  locked: LockedJob,
  { attempt, number, seq, record }: RefusedRow,
  maxMetricNames: number,
): Promise<boolean> {
  const parsed = parseRecord(JSON.parse(unpackBytes(record)));
  if (!parsed) return false;
  let shown: NewLine = {
    time: parsed.time,
    stream: 'SYSTEM',
    text: 'What the database refused here was stored later.',
  };
  switch (parsed.type) {
    case 'line':
      shown = parsed;
      break;
    case 'points':
      await appendPoints(tx, locked, attempt, number, pointsOf(parsed), maxMetricNames);
      break;
    case 'checkpoint':
    case 'alert':
      await addReported(tx, locked, parsed);
      break;
    case 'progress':
    case 'gap':
    case 'started':
    case 'finished':
      return false;
  }
  if (seq !== null) await fillGap(tx, locked, seq, shown);
  return true;
}
