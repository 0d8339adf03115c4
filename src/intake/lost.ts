// Attempts that end without a word of their runner: a lease that lapsed, a supervisor that was killed, a start that took too
// long. Each end comes with its windows closed and a line in the log.
import type { Actor } from '../actor.ts';
import { type Attempt, loadAttempts } from '../attempt/attempt.ts';
import { expireStart, excerptLines, loseAttempt } from '../attempt/end.ts';
import { notFound } from '../errors.ts';
import { changeJob } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import { appendLog } from '../log/append.ts';
import { readExcerpt } from '../log/read.ts';
import { closeAllWindows } from '../metric/append.ts';
import { requireRunner } from '../runner/runner.ts';

/** Ends one attempt whose lease lapsed, with its windows and a line in the log; false when it was heard in the meantime. */
export async function expireLease(tx: Tx, lapsed: Attempt): Promise<boolean> {
  return lose(tx, lapsed, 'LEASE');
}

/** Ends an attempt at once of which its runner says that nothing runs any more; one that has ended stays as it is. */
export async function loseBySupervisor(
  tx: Tx,
  actor: Actor,
  lost: { attemptId: string; runnerId: string },
): Promise<void> {
  const { attemptId, runnerId } = lost;
  await requireRunner(tx, actor, runnerId);
  const row = (await loadAttempts(tx, [attemptId])).get(attemptId);
  if (row?.runnerId !== runnerId) throw notFound('Attempt', attemptId);
  await lose(tx, row, 'SUPERVISOR');
}

async function lose(tx: Tx, open: Attempt, how: 'LEASE' | 'SUPERVISOR'): Promise<boolean> {
  const ended = await changeJob(tx, open.jobId, async (locked) => {
    const limits = { maxLines: excerptLines, attempt: open.number };
    const logExcerpt = await readExcerpt(tx, open.jobId, locked.stream.line, limits);
    const lost = await loseAttempt(tx, locked, open.id, { how, logExcerpt });
    if (!lost) return false;
    await closeAllWindows(tx, locked);
    const what = how === 'LEASE' ? 'The runner was lost' : 'The supervisor was killed';
    const text = `${what} in attempt ${lost.number}; the job is ${locked.job.state}.`;
    await appendLog(tx, locked, lost.number, [{ time: Date.now(), stream: 'SYSTEM', text }]);
    return true;
  });
  return ended ?? false;
}

/** Ends one attempt whose command does not run in time, with a line in the log; false when it runs by now. */
export async function expireLateStart(tx: Tx, late: Attempt): Promise<boolean> {
  const ended = await changeJob(tx, late.jobId, async (locked) => {
    const row = await expireStart(tx, locked, late.id);
    if (!row) return false;
    const text = `Attempt ${row.number} did not start in time; the job is ${locked.job.state}.`;
    await appendLog(tx, locked, row.number, [{ time: Date.now(), stream: 'SYSTEM', text }]);
    return true;
  });
  return ended ?? false;
}
