// A database that was restored from the dump of another server holds transaction numbers which this
// server has not reached yet. Streams over many jobs would wait for them: `renumberRestored`
// replaces them.
import { sql } from 'drizzle-orm';
import { renumberEvents } from '../event/event.ts';
import { aheadOfServer } from '../live/changes.ts';
import type { Tx } from '../live/commit.ts';
import { job } from './table.ts';

/**
 * Gives jobs and events with such a number the number of this transaction. Without such a job, it
 * costs one look at an index.
 */
export async function renumberRestored(tx: Tx): Promise<void> {
  const ahead = aheadOfServer(job.changed);
  const [aheadJob] = await tx.select({ id: job.id }).from(job).where(ahead).limit(1);
  if (!aheadJob) return;
  await tx
    .update(job)
    .set({ changed: sql`pg_current_xact_id()` })
    .where(ahead);
  await renumberEvents(tx);
}
