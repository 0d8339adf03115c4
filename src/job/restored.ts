// A dump that was restored into another server: its rows hold numbers of transactions that are still to come there, and
// streams over many jobs would wait for these.
import { sql } from 'drizzle-orm';
import { renumberEvents } from '../event/event.ts';
import { aheadOfServer } from '../live/changes.ts';
import type { Tx } from '../live/commit.ts';
import { job } from './table.ts';

/** Makes such rows rows of this transaction; jobs and events that stand well cost one look at an index. */
export async function renumberRestored(tx: Tx): Promise<void> {
  const ahead = aheadOfServer(job.changed);
  const [found] = await tx.select({ id: job.id }).from(job).where(ahead).limit(1);
  if (!found) return;
  await tx
    .update(job)
    .set({ changed: sql`pg_current_xact_id()` })
    .where(ahead);
  await renumberEvents(tx);
}
