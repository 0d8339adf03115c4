// Attempts: a runner claims a job and keeps its lease; `end.ts` ends them. The lease token is the
// fence: without it nothing is stored. The database's clock alone ends a lease. Cancelling a job
// stands here too, since a running job ends only when its runner proves the end of its attempt.
import { and, asc, desc, eq, isNull, sql } from 'drizzle-orm';
import { type Actor, requireScope } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import type { SecretKey } from '../config.ts';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import { invalid, notFound, Refusal } from '../errors.ts';
import { newId } from '../id.ts';
import { addEvent, changeJob, type Job, type LockedJob, moveJob, requireJob } from '../job/job.ts';
import { isTerminal, type StateReason } from '../job/state.ts';
import { job } from '../job/table.ts';
import type { Tx } from '../live/commit.ts';
import type { Acknowledgement, Assignment, ClaimRequest, Directive } from '../protocol/control.ts';
import { requireRunner, type Runner, touchRunner } from '../runner/runner.ts';
import { openSecrets } from '../secret/secret.ts';
import type { EffectiveSpec } from '../spec/shape.ts';
import { writeEnd, moveOn, usedMs } from './end.ts';
import { place } from './place.ts';
import { readCluster, readQueue } from './queue.ts';
import { attempt, placement } from './table.ts';

export type Attempt = typeof attempt.$inferSelect;

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

function leaseEnd(seconds: number) {
  return sql<Date>`${now} + ${`${seconds} s`}::interval`;
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

/**
 * Renews the lease of an attempt. A runner with another token, or after the attempt's end, gets the
 * directive ABANDON.
 */
export async function renewLease(
  tx: Tx,
  actor: Actor,
  renewal: { attemptId: string; leaseToken: string; leaseSeconds: number },
): Promise<Acknowledgement> {
  const { attemptId } = renewal;
  const current = (await loadAttempts(tx, [attemptId])).get(attemptId);
  if (!current) throw notFound('Attempt', attemptId);
  await requireRunner(tx, actor, current.runnerId);
  const answer = await changeJob(tx, current.jobId, async (locked) => {
    const row = (await loadAttempts(tx, [attemptId])).get(attemptId); // read again under the lock
    if (!row) throw notFound('Attempt', attemptId);
    if (holdsLease(row, renewal.leaseToken)) {
      await saveAttempt(tx, row, { mark: row.mark }, renewal.leaseSeconds);
    }
    return acknowledge(row, locked.job, renewal.leaseToken);
  });
  if (!answer) throw notFound('Attempt', attemptId);
  await touchRunner(tx, current.runnerId); // after the job's lock, the order of all transactions
  return answer;
}

/**
 * Whether batches with this token are stored: it is the current one, and the attempt has not ended.
 */
export function holdsLease(row: Attempt, leaseToken: string): boolean {
  return row.finishedAt === null && row.leaseToken === leaseToken;
}

/**
 * Makes the acknowledgement for the holder of a token: the number up to which records are stored,
 * and directives.
 */
export function acknowledge(row: Attempt, owner: Job, leaseToken: string): Acknowledgement {
  const directives: Directive[] = [];
  if (!holdsLease(row, leaseToken)) directives.push({ type: 'ABANDON' });
  else if (owner.state === 'CANCELLING') directives.push({ type: 'CANCEL', graceSeconds: owner.cancelGraceSeconds });
  return { attemptId: row.id, committed: row.mark, directives };
}

/** Writes changes of an attempt under its job's lock, and renews its lease unless it has ended. */
export async function saveAttempt(tx: Tx, row: Attempt, change: Partial<Attempt>, leaseSeconds: number): Promise<void> {
  const lease = row.finishedAt === null ? { leaseExpiresAt: leaseEnd(leaseSeconds) } : {};
  await tx
    .update(attempt)
    .set({ ...change, ...lease })
    .where(eq(attempt.id, row.id));
}

/** Records that the command runs, and moves the job to RUNNING. */
export async function markStarted(tx: Tx, locked: LockedJob, row: Attempt, at: Date): Promise<void> {
  row.startedAt = at;
  row.state = 'RUNNING';
  await tx.update(attempt).set({ startedAt: at, state: 'RUNNING' }).where(eq(attempt.id, row.id));
  if (locked.job.state === 'STARTING') await moveJob(tx, locked, 'RUNNING', { reason: null, at });
}

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

/** Loads attempts by their ids. */
export async function loadAttempts(db: Db, ids: readonly string[]): Promise<Map<string, Attempt>> {
  const rows = await db.select().from(attempt).where(isOneOf(attempt.id, ids));
  return new Map(rows.map((row) => [row.id, row]));
}

/** Loads the attempts of jobs, oldest first, by id of the job. */
export async function loadAttemptsOfJobs(db: Db, jobIds: readonly string[]): Promise<Map<string, Attempt[]>> {
  const rows = await db
    .select()
    .from(attempt)
    .where(isOneOf(attempt.jobId, jobIds))
    .orderBy(asc(attempt.jobId), asc(attempt.number));
  return Map.groupBy(rows, (row) => row.jobId);
}

/** Loads the attempts that run now, by id of the runner. */
export async function loadActiveAttempts(db: Db, runnerIds: readonly string[]): Promise<Map<string, Attempt[]>> {
  const rows = await db
    .select()
    .from(attempt)
    .where(and(isOneOf(attempt.runnerId, runnerIds), isNull(attempt.finishedAt)));
  return Map.groupBy(rows, (row) => row.runnerId);
}
