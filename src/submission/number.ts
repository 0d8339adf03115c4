// Job numbers for people: 42 of `p-demo/42`. A gateway takes them in blocks, in a transaction of
// its own. Numbers without holes, taken in the transaction of the job, would make all submissions
// of a project wait for each other.
import { sql } from 'drizzle-orm';
import { type Database, databaseErrorCode } from '../database/database.ts';
import { notFound, Refusal } from '../errors.ts';
import { jobNumber } from './table.ts';

/**
 * Sizes of blocks: 4 numbers at first, then twice as many each time, up to 64. A gateway that
 * restarts skips the rest of its block, so a project with few jobs skips few numbers.
 */
const [firstBlock, largestBlock] = [4, 64];
type Block = { next: number; end: number; size: number };
const blocks = new WeakMap<Database, Map<string, Promise<Block>>>();

/**
 * Calls `work` with the next number of the project. When `isUsed` says that no job got the number,
 * e.g. for a repeated submission, or `work` refuses it, the next job gets it, unless a later number
 * was taken meanwhile. After another error the number is skipped, since the job may have been
 * written.
 */
export async function withJobNumber<Result>(
  database: Database,
  projectId: string,
  isUsed: (result: Result) => boolean,
  work: (number: number) => Promise<Result>,
): Promise<Result> {
  const number = await nextJobNumber(database, projectId);
  try {
    const result = await work(number);
    if (!isUsed(result)) await giveBack(database, projectId, number);
    return result;
  } catch (error) {
    if (error instanceof Refusal) await giveBack(database, projectId, number); // nothing was written
    throw error;
  }
}

async function giveBack(database: Database, projectId: string, number: number): Promise<void> {
  const block = await blocks.get(database)?.get(projectId);
  if (block && block.next === number + 1 && number >= block.end - block.size) block.next = number;
}

/**
 * Returns the next number of the project; numbers grow and may skip. Throws NOT_FOUND for a project
 * that does not exist.
 */
export async function nextJobNumber(database: Database, projectId: string): Promise<number> {
  const blocksOfDatabase = blocks.get(database) ?? new Map<string, Promise<Block>>();
  blocks.set(database, blocksOfDatabase);
  for (let size = firstBlock; ;) {
    const pending = blocksOfDatabase.get(projectId) ?? takeBlock(database, projectId, size);
    blocksOfDatabase.set(projectId, pending);
    try {
      const block = await pending;
      if (block.next < block.end) return block.next++;
      size = Math.min(2 * block.size, largestBlock);
    } catch (error) {
      if (blocksOfDatabase.get(projectId) === pending) blocksOfDatabase.delete(projectId);
      throw error;
    }
    if (blocksOfDatabase.get(projectId) === pending) blocksOfDatabase.delete(projectId);
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
