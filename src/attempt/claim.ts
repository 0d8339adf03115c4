// A runner claims a job: the next one that fits its free GPUs becomes an attempt with a lease, and
// the runner gets what it is to run, with the values of the job's secrets.
import { and, desc, eq } from 'drizzle-orm';
import type { Actor } from '../actor.ts';
import type { Db } from '../database/database.ts';
import { newId } from '../id.ts';
import { addEvent, changeJob, type Job, type LockedJob, moveJob } from '../job/job.ts';
import type { StateReason } from '../job/state.ts';
import { job } from '../job/table.ts';
import type { Tx } from '../live/commit.ts';
import type { Assignment, ClaimRequest } from '../protocol/control.ts';
import { requireRunner, type Runner, touchRunner } from '../runner/runner.ts';
import { openSecrets } from '../secret/secret.ts';
import type { EffectiveSpec } from '../spec/shape.ts';
import type { SecretKey } from '../variables.ts';
import { type Attempt, leaseEnd, loadAttempts, loadAttemptsOfJobs } from './attempt.ts';
import { moveOn, usedMs, writeEnd } from './end.ts';
import { place } from './place.ts';
import { readCluster, readQueue } from './queue.ts';
import { attempt, placement } from './table.ts';

/**
 * Gives the runner the next job that fits its free GPUs, as a new attempt with a lease. Returns
 * null when there is none, or when a secret of the job is missing: the job then fails, and the next
 * claim with the same request gets the next job.
 */
export async function claimJob(
  tx: Tx,
  actor: Actor,
  request: ClaimRequest,
  leaseSeconds: number,
  secretKeys: readonly SecretKey[] = [],
): Promise<Assignment | null> {
  const runner = await requireRunner(tx, actor, request.runnerId);
  const assignment = await claimNext(tx, runner, request, leaseSeconds, secretKeys);
  await touchRunner(tx, runner.id, { claims: true }); // after the job's lock, the order of all transactions
  return assignment;
}

/**
 * Returns the attempt that this claim got before, when its answer was lost; null for none.
 * `claimJob` answers it again.
 */
export async function findClaimed(db: Db, { runnerId, requestId }: ClaimRequest): Promise<Attempt | null> {
  const [row] = await db
    .select()
    .from(attempt)
    .where(and(eq(attempt.runnerId, runnerId), eq(attempt.requestId, requestId)));
  return row ?? null;
}

async function claimNext(
  tx: Tx,
  runner: Runner,
  request: ClaimRequest,
  leaseSeconds: number,
  secretKeys: readonly SecretKey[],
): Promise<Assignment | null> {
  await tx.insert(placement).values({}).onConflictDoNothing();
  await tx.select().from(placement).for('update');
  // Checked under the lock, since a runner may repeat a claim while the first call still runs.
  const earlier = await findClaimed(tx, request);
  if (earlier) return earlier.finishedAt ? null : assign(tx, earlier, secretKeys);

  const cluster = await readCluster(tx, new Map([[runner.id, request.freeGpus]]));
  const next = place(await readQueue(tx, runner.projectIds), cluster, runner.id);
  if (!next) return null;
  await tx.update(placement).set({ sinceOldest: next.sinceOldest });
  const attemptId = await changeJob(tx, next.queued.id, (locked) =>
    startAttempt(tx, locked, runner, { requestId: request.requestId, gpus: next.gpus, leaseSeconds }),
  );
  const created = attemptId && (await loadAttempts(tx, [attemptId])).get(attemptId);
  return created ? assign(tx, created, secretKeys) : null;
}

/**
 * Starts an attempt of a queued job on a runner. Returns its id; null when the job is not queued
 * any more.
 */
export async function startAttempt(
  tx: Tx,
  locked: LockedJob,
  runner: Runner,
  claim: { requestId: string; gpus: number[]; leaseSeconds: number },
): Promise<string | null> {
  if (locked.job.state !== 'QUEUED') return null; // e.g. cancelled since the queue was read
  const jobId = locked.job.id;
  const [last] = await tx.select().from(attempt).where(eq(attempt.jobId, jobId)).orderBy(desc(attempt.number)).limit(1);
  const number = (last?.number ?? 0) + 1;
  const id = newId('att');
  const startSeconds = locked.job.effective.start_timeout_seconds;
  await tx.insert(attempt).values({
    id,
    jobId,
    number,
    runnerId: runner.id,
    requestId: claim.requestId,
    leaseToken: newId('lease'),
    leaseExpiresAt: leaseEnd(claim.leaseSeconds),
    gpus: claim.gpus,
    state: 'STARTING',
    startExpiresAt: startSeconds === undefined ? null : leaseEnd(startSeconds),
  });
  Object.assign(locked.job, { notBefore: null, queueExpiresAt: null });
  await moveJob(tx, locked, 'STARTING', { reason: null, at: new Date() });
  await addEvent(tx, locked, {
    type: 'ATTEMPT_STARTED',
    actorId: runner.id,
    message: `Attempt ${number} was claimed by ${runner.name}.`,
    data: { attemptId: id, runnerId: runner.id, gpus: claim.gpus },
  });
  return id;
}
type Variable = NonNullable<EffectiveSpec['env']>[number];

/**
 * Makes the assignment of an attempt, with the values of the job's secrets. Returns null when a
 * secret is missing, and ends the job.
 */
async function assign(tx: Tx, row: Attempt, secretKeys: readonly SecretKey[]): Promise<Assignment | null> {
  const [owner] = await tx.select().from(job).where(eq(job.id, row.jobId));
  if (!owner) throw new Error(`Attempt ${row.id} has no job.`);
  const variables = owner.effective.env ?? [];
  const names = new Set(variables.flatMap(({ from }) => from.secret ?? []));
  const opened = await openSecrets(tx, owner.projectId, [...names], secretKeys);
  if (opened.problem === null) return toAssignment(tx, row, owner, { variables, values: opened.values });
  const { problem, hint } = opened;
  await changeJob(tx, owner.id, (locked) => endUnstarted(tx, locked, row.id, { message: problem, hint }));
  return null;
}

/**
 * Ends an attempt that no runner has started, and its job with it: a retry would fail in the same
 * way.
 */
async function endUnstarted(
  tx: Tx,
  locked: LockedJob,
  attemptId: string,
  { message, hint }: { message: string; hint: string },
): Promise<void> {
  const row = (await loadAttempts(tx, [attemptId])).get(attemptId); // read again under the lock
  if (row?.state !== 'STARTING' || row.finishedAt !== null) return;
  // The request id is freed, so that the repeated claim gets another job.
  await tx.update(attempt).set({ requestId: row.id }).where(eq(attempt.id, row.id));
  const at = new Date();
  const reason: StateReason = {
    code: 'COMMAND_NOT_STARTED',
    message: `The command could not be started: ${message}`,
    hint,
  };
  await writeEnd(tx, locked, row, { state: 'FAILED', reason, at, exitCode: null, signal: null });
  const cancelled: StateReason = { code: 'REQUESTED', message: locked.job.reasonMessage ?? 'Cancelled.' };
  if (locked.job.state === 'CANCELLING') return moveOn(tx, locked, 'CANCELLED', cancelled, at);
  return moveOn(tx, locked, 'FAILED', reason, at);
}

async function toAssignment(
  tx: Tx,
  row: Attempt,
  owner: Job,
  { variables, values }: { variables: readonly Variable[]; values: ReadonlyMap<string, string> },
): Promise<Assignment> {
  const valueOf = ({ from }: Variable) => (from.secret === undefined ? from.value : values.get(from.secret)) ?? '';
  return {
    attemptId: row.id,
    attemptNumber: row.number,
    leaseToken: row.leaseToken,
    gpus: row.gpus,
    job: {
      id: owner.id,
      number: owner.number,
      name: owner.name,
      projectId: owner.projectId,
      scheduleId: owner.scheduleId,
    },
    spec: owner.effective,
    command: owner.effective.command,
    env: Object.fromEntries(variables.map((variable) => [variable.name, valueOf(variable)])),
    secretEnv: variables.filter(({ from }) => from.secret !== undefined).map(({ name }) => name),
    timeoutSeconds: owner.timeoutSeconds === null ? null : await timeLeft(tx, row, owner.timeoutSeconds),
    committed: row.mark,
  };
}

/**
 * Seconds of the job's timeout that its earlier attempts did not use. At least 1, so that the
 * attempt starts and ends as timed out.
 */
async function timeLeft(tx: Tx, row: Attempt, timeoutSeconds: number): Promise<number> {
  const earlier = (await loadAttemptsOfJobs(tx, [row.jobId])).get(row.jobId) ?? [];
  return Math.max(1, Math.ceil(timeoutSeconds - usedMs(earlier) / 1000));
}
