// Numbers for people: 42 of `p-demo/42`. A gateway takes them in blocks, in a transaction of its own: one that is dense
// and taken in the job's transaction would make all submissions of a project wait for each other.
import { sql } from 'drizzle-orm';
import { type Database, databaseErrorCode } from '../database/database.ts';
import { notFound } from '../errors.ts';
import { jobNumber } from './table.ts';

const blockSize = 64;
type Block = { next: number; end: number };
const blocks = new WeakMap<Database, Map<string, Promise<Block>>>();

/** The next number of the project; growing, may skip. Throws NOT_FOUND for a project that does not exist. */
export async function nextJobNumber(database: Database, projectId: string): Promise<number> {
  const known = blocks.get(database) ?? new Map<string, Promise<Block>>();
  blocks.set(database, known);
  for (;;) {
    const pending = known.get(projectId) ?? takeBlock(database, projectId);
    known.set(projectId, pending);
    try {
      const block = await pending;
      if (block.next < block.end) return block.next++;
    } catch (error) {
      if (known.get(projectId) === pending) known.delete(projectId);
      throw error;
    }
    if (known.get(projectId) === pending) known.delete(projectId);
  }
}

async function takeBlock(database: Database, projectId: string): Promise<Block> {
  try {
    const [row] = await database.db
      .insert(jobNumber)
      .values({ projectId, next: 1 + blockSize })
      .onConflictDoUpdate({ target: jobNumber.projectId, set: { next: sql`${jobNumber.next} + ${blockSize}` } })
      .returning();
    if (!row) throw new Error('An upsert returned no row.');
    return { next: row.next - blockSize, end: row.next };
  } catch (error) {
    if (databaseErrorCode(error) === '23503') throw notFound('Project', projectId, ['input', 'spec', 'projectId']);
    throw error;
  }
}
