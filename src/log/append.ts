// Lines into the log: they get the next numbers, and beyond the job's limit the log keeps its head and a rolling tail.
import { and, eq, gt, gte, lte, sql } from 'drizzle-orm';
import { packBytes, unpackBytes } from '../database/columns.ts';
import type { LockedJob } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import { type Entry, logStreams, type NewGap, type NewLine } from './log.ts';
import { logChunk } from './table.ts';

/** Appends lines and gaps to a locked job's log, in this order, and gives them the next numbers. */
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

/** Puts a line in the place of one that was refused; nothing happens when the log keeps no such gap any more. */
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
    const found = first === seq && entry[3] === 'gap' && entry[1] === 1 && entry[2] === 'REFUSED';
    first += entry[3] === 'gap' ? entry[1] : 1;
    return found;
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
 * A log beyond its limit keeps its head and a rolling tail, half of the bytes each; what was between is a gap. Cut only
 * when a twentieth too much has gathered, since finding the place reads the sizes of all chunks.
 */
async function keepWithinLimit(tx: Tx, locked: LockedJob): Promise<void> {
  const { max_bytes: maxBytes } = locked.job.effective.logs;
  if (locked.stream.logBytes <= maxBytes * 1.05) return;
  const jobId = locked.job.id;
  const { size } = logChunk;
  const sizes = tx
    .select({
      first: logChunk.first,
      // Running totals from either end: a chunk is in the middle when neither half has room for it.
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
    .where(and(gt(sizes.first, 1), gt(sizes.fromStart, half), gt(sizes.fromEnd, half))); // the head stays: see isPruned
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
