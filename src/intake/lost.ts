// Ends attempts whose runner sends no end: the lease expired, the supervisor was killed, or the
// start took too long. The transaction also closes the attempt's metric windows and adds a line to
// the log.
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

/**
 * Ends one attempt whose lease expired, closes its windows and adds a line to the log. Returns
 * false when a batch renewed the lease meanwhile.
 */
export async function expireLease(tx: Tx, attempt: Attempt): Promise<boolean> {
  return lose(tx, attempt, 'LEASE');
}

/**
 * Ends an attempt at once, because its runner says that its supervisor was killed and none of its
 * processes runs. An attempt that has ended stays as it is. Throws NOT_FOUND for an attempt of
 * another runner.
 */
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
  const isLost = await changeJob(tx, open.jobId, async (locked) => {
    const limits = { maxLines: excerptLines, attempt: open.number };
    const logExcerpt = await readExcerpt(tx, open.jobId, locked.stream.line, limits);
    const ended = await loseAttempt(tx, locked, open.id, { how, logExcerpt });
    if (!ended) return false;
    await closeAllWindows(tx, locked);
    const cause = how === 'LEASE' ? 'The runner was lost' : 'The supervisor was killed';
    const text = `${cause} in attempt ${ended.number}; the job is ${locked.job.state}.`;
    await appendLog(tx, locked, ended.number, [{ time: Date.now(), stream: 'SYSTEM', text }]);
    return true;
  });
  return isLost ?? false;
}

/**
 * Ends one attempt whose command did not start in time, and adds a line to the log. Returns false
 * when it has started meanwhile.
 */
export async function expireLateStart(tx: Tx, attempt: Attempt): Promise<boolean> {
  const ended = await changeJob(tx, attempt.jobId, async (locked) => {
    const row = await expireStart(tx, locked, attempt.id);
    if (!row) return false;
    const text = `Attempt ${row.number} did not start in time; the job is ${locked.job.state}.`;
    await appendLog(tx, locked, row.number, [{ time: Date.now(), stream: 'SYSTEM', text }]);
    return true;
  });
  return ended ?? false;
}
