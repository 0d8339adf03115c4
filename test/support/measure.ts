// Points, tiers and ends of jobs without a runner: calls the functions of the rooms directly.
import { sql } from 'drizzle-orm';
import { changeJob, moveJob } from '../../src/job/job.ts';
import { isTerminal } from '../../src/job/state.ts';
import { commit, type Store } from '../../src/live/commit.ts';
import { appendPoints, closeAllWindows, type NewPoint } from '../../src/metric/append.ts';
import { rollUpNext } from '../../src/metric/tier.ts';

const records = new Map<string, number>();

/** Appends points of an attempt as one batch; `time` is in seconds since the Unix epoch. */
export async function addPoints(
  store: Store,
  jobId: string,
  points: readonly (Partial<NewPoint> & { value: number; time: number })[],
  attempt = 1,
): Promise<void> {
  const first = (records.get(jobId) ?? 0) + 1;
  records.set(jobId, first + points.length);
  const rows = points.map((point) => ({ name: 'm', step: null, epoch: null, ...point, time: point.time * 1000 }));
  await commit(store, (tx) => changeJob(tx, jobId, (locked) => appendPoints(tx, locked, attempt, first, rows)));
}

/** Closes all open windows, as the end of an attempt does. */
export async function closeWindows(store: Store, jobId: string): Promise<void> {
  await commit(store, (tx) => changeJob(tx, jobId, (locked) => closeAllWindows(tx, locked)));
}

/** Merges all closed windows into tiers; returns the number of steps that had work. */
export async function rollUpAll(store: Store, limit?: number): Promise<number> {
  for (let steps = 0; ; steps++) {
    if (!(await commit(store, (tx) => rollUpNext(tx, limit)))) return steps;
  }
}

/** Ends a queued job, `daysAgo` days in the past. */
export async function endJob(store: Store, jobId: string, daysAgo = 0): Promise<void> {
  const at = new Date(Date.now() - daysAgo * 86_400_000);
  await commit(store, (tx) =>
    changeJob(tx, jobId, async (locked) => {
      await closeAllWindows(tx, locked);
      if (!isTerminal(locked.job.state)) await moveJob(tx, locked, 'CANCELLED', { reason: null, at });
      locked.job.finishedAt = at;
    }),
  );
  // A job is created before it ends.
  await store.database.db.execute(
    sql`update job set created_at = least(created_at, ${at.toISOString()}::timestamptz) where id = ${jobId}`,
  );
}
