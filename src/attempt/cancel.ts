// Cancelling a job: a queued one ends at once, a running one when its runner proves that its
// attempt ended.
import { and, eq, isNull } from 'drizzle-orm';
import { type Actor, requireScope } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import { invalid, Refusal } from '../errors.ts';
import { changeJob, type Job, type LockedJob, moveJob, requireJob } from '../job/job.ts';
import { isTerminal, type StateReason } from '../job/state.ts';
import type { Tx } from '../live/commit.ts';
import { attempt } from './table.ts';

export type CancelInput = { id: string; reason: string | null; gracePeriodSeconds: number | null };

/**
 * Cancels a job: a queued one at once, a running one once its runner proves its end. Repeating it
 * is fine.
 */
export async function cancelJob(tx: Tx, actor: Actor, input: CancelInput): Promise<Job> {
  const path = ['input', 'id'];
  const { id: jobId, projectId } = await requireJob(tx, actor, input.id, path);
  requireScope(actor, projectId, 'WRITE', path);
  checkCancel(input);
  await changeJob(tx, jobId, async (locked) => {
    const { state } = locked.job;
    if (state === 'CANCELLED' || state === 'CANCELLING') return;
    if (isTerminal(state)) {
      const message = `The job has ended already: it is ${state}.`;
      throw new Refusal('INVALID_STATE', message, { path, currentState: state });
    }
    const why = input.reason ? `Cancelled by ${actor.name}: ${input.reason}` : `Cancelled by ${actor.name}.`;
    locked.job.cancelGraceSeconds = input.gracePeriodSeconds;
    await stopJob(tx, locked, { reason: { code: 'REQUESTED', message: why }, actorId: actor.tokenId });
  });
  return requireJob(tx, actor, jobId);
}

/**
 * Stops a locked job: a queued one at once, a running one once its runner proves its end. A job
 * that is stopping or has ended stays as it is.
 */
export async function stopJob(
  tx: Tx,
  locked: LockedJob,
  wish: { reason: StateReason; actorId: string | null },
): Promise<void> {
  const { id, state } = locked.job;
  if (isTerminal(state) || state === 'CANCELLING') return;
  await moveJob(tx, locked, state === 'QUEUED' ? 'CANCELLED' : 'CANCELLING', { ...wish, at: new Date() });
  const [active] = await tx
    .select()
    .from(attempt)
    .where(and(eq(attempt.jobId, id), isNull(attempt.finishedAt)));
  // The runner would learn of it by its next heartbeat; the notification makes it quick.
  if (active) tx.notify(channels.runner(active.runnerId));
}

function checkCancel({ gracePeriodSeconds: grace, reason }: CancelInput): void {
  const outOfRange = (field: string, message: string) =>
    invalid([{ code: 'OUT_OF_RANGE', path: ['input', field], message }]);
  if (grace !== null && (grace < 0 || grace > 3_600)) {
    throw outOfRange('gracePeriodSeconds', 'gracePeriodSeconds goes from 0 to 3600.');
  }
  if (reason !== null && (reason.length > 1_000 || reason.includes('\0') || !reason.isWellFormed())) {
    throw outOfRange('reason', 'reason takes 1000 characters at most.');
  }
}
