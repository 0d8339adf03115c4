// Numbers for people: 42 of `p-demo/42`. A gateway takes them in blocks, in a transaction of its own: one that is dense
// and taken in the job's transaction would make all submissions of a project wait for each other.
import { sql } from 'drizzle-orm';
import { type Database, databaseErrorCode } from '../database/database.ts';
import { notFound } from '../errors.ts';
import { jobNumber } from './table.ts';

/** A block is twice the last one, so that few jobs skip few numbers when a gateway restarts. */
const [firstBlock, largestBlock] = [4, 64];
type Block = { next: number; end: number; size: number };
const blocks = new WeakMap<Database, Map<string, Promise<Block>>>();

/**
 * Calls `work` with the next number of the project. When its result says that no job has the number, e.g. since the
 * submission was a repeat, the next job gets it, unless another number was taken meanwhile. After an error it is skipped:
 * nobody knows whether the job was written.
 */
export async function withJobNumber<Result>(
  database: Database,
  projectId: string,
  isUsed: (result: Result) => boolean,
  work: (number: number) => Promise<Result>,
): Promise<Result> {
  const number = await nextJobNumber(database, projectId);
  const result = await work(number);
  if (!isUsed(result)) await giveBack(database, projectId, number);
  return result;
}

async function giveBack(database: Database, projectId: string, number: number): Promise<void> {
  const block = await blocks.get(database)?.get(projectId);
  if (block && block.next === number + 1 && number >= block.end - block.size) block.next = number;
}

/** The next number of the project; growing, may skip. Throws NOT_FOUND for a project that does not exist. */
export async function nextJobNumber(database: Database, projectId: string): Promise<number> {
  const known = blocks.get(database) ?? new Map<string, Promise<Block>>();
  blocks.set(database, known);
  for (let size = firstBlock; ;) {
    const pending = known.get(projectId) ?? takeBlock(database, projectId, size);
    known.set(projectId, pending);
    try {
      const block = await pending;
      if (block.next < block.end) return block.next++;
      size = Math.min(2 * block.size, largestBlock);
    } catch (error) {
      if (known.get(projectId) === pending) known.delete(projectId);
      throw error;
    }
    if (known.get(projectId) === pending) known.delete(projectId);
  }
}

async function takeBlock(database: Database, projectId: string, size: number): Promise<Block> {
  try {
    const [row] = await database.db
      .insert(jobNumber)
      .values({ projectId, next: 1 + size })
      .onConflictDoUpdate({ target: jobNumber.projectId, set: { next: sql`${jobNumber.next} + ${size}` } })
      .returning();
    if (!row) throw new Error('An upsert returned no row.');
    return { next: row.next - size, end: row.next, size };
  } catch (error) {
    if (databaseErrorCode(error) === '23503') throw notFound('Project', projectId, ['input', 'spec', 'projectId']);
    throw error;
  }
}
