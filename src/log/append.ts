// Appends lines to the log of a job and numbers them. A log beyond its limit keeps its head and its
// newest lines; the lines between become a gap.
import { and, eq, gt, gte, lte, sql } from 'drizzle-orm';
import { packBytes, unpackBytes } from '../database/columns.ts';
import type { LockedJob } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import { type Entry, logStreams, type NewGap, type NewLine } from './log.ts';
import { logChunk } from './table.ts';

/**
 * Appends lines and gaps to the log of a locked job, in this order, and numbers them from
 * `locked.stream.line + 1` on.
 */
export async function appendLog(
  tx: Tx,
  locked: LockedJob,
  attempt: number,
  items: readonly (NewLine | NewGap)[],
): Promise<void> {
  const [head, tail] = [items[0], items.at(-1)];
  if (!head || !tail) return;
  const first = locked.stream.line + 1;
  for (const item of items) locked.stream.line += 'lines' in item ? item.lines : 1;
  const { packed: body, size } = packBytes(JSON.stringify(items.map(toEntry)));
  const times = items.map((item) => item.time);
  locked.stream.logBytes += size;
  await tx.insert(logChunk).values({
    jobId: locked.job.id,
    first,
    last: locked.stream.line,
    attempt,
    firstTime: new Date(Math.min(...times)),
    lastTime: new Date(Math.max(...times)),
    body,
    size,
  });
  await keepWithinLimit(tx, locked);
}

/**
 * Replaces the gap at number `seq`, which stands for one line that the database refused, with a
 * line. Does nothing when the log has no such gap.
 */
export async function fillGap(tx: Tx, locked: LockedJob, seq: number, line: NewLine): Promise<void> {
  const jobId = locked.job.id;
  const [chunk] = await tx
    .select()
    .from(logChunk)
    .where(and(eq(logChunk.jobId, jobId), lte(logChunk.first, seq), gte(logChunk.last, seq)));
  if (!chunk) return;
  const entries = JSON.parse(unpackBytes(chunk.body)) as Entry[];
  let first = chunk.first;
  const index = entries.findIndex((entry) => {
    const isRefusedLine = first === seq && entry[3] === 'gap' && entry[1] === 1 && entry[2] === 'REFUSED';
    first += entry[3] === 'gap' ? entry[1] : 1;
    return isRefusedLine;
  });
  if (index === -1) return;
  const { packed: body, size } = packBytes(JSON.stringify(entries.with(index, toEntry(line))));
  locked.stream.logBytes += size - chunk.size;
  await tx
    .update(logChunk)
    .set({ body, size })
    .where(and(eq(logChunk.jobId, jobId), eq(logChunk.first, chunk.first)));
}

/**
 * Removes the middle of a log beyond its limit, so that its head and its newest lines keep half of
 * the bytes each. It acts only 5 % above the limit, because finding the middle reads the sizes of
 * all chunks.
 */
async function keepWithinLimit(tx: Tx, locked: LockedJob): Promise<void> {
  const { max_bytes: maxBytes } = locked.job.effective.logs;
  if (locked.stream.logBytes <= maxBytes * 1.05) return;
  const jobId = locked.job.id;
  const { size } = logChunk;
  const sizes = tx
    .select({
      first: logChunk.first,
      // Running totals from either end: a chunk beyond half the limit in both is in the middle.
      fromStart: sql<number>`sum(${size}) over (order by ${logChunk.first})`.as('from_start'),
      fromEnd: sql<number>`sum(${size}) over (order by ${logChunk.first} desc)`.as('from_end'),
    })
    .from(logChunk)
    .where(eq(logChunk.jobId, jobId))
    .as('sizes');
  const half = maxBytes / 2;
  const middle = tx
    .select({ first: sizes.first })
    .from(sizes)
    // The first chunk stays, so that readers know a removed head from a cut middle (`isPruned`).
    .where(and(gt(sizes.first, 1), gt(sizes.fromStart, half), gt(sizes.fromEnd, half)));
  const removed = await tx
    .delete(logChunk)
    .where(and(eq(logChunk.jobId, jobId), sql`${logChunk.first} in ${middle}`))
    .returning({ size });
  locked.stream.logBytes -= removed.reduce((sum, row) => sum + row.size, 0);
}

function toEntry(item: NewLine | NewGap): Entry {
  if ('lines' in item) return [item.time, item.lines, item.reason, 'gap'];
  const entry: Entry = [item.time, logStreams.indexOf(item.stream), item.text];
  return item.truncated ? [entry[0], entry[1], entry[2], 1] : entry;
}
