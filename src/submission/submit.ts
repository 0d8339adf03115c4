// The one way to a job: a submission is planned outside of a transaction and written inside of one.
// Submissions that arrive in one turn of the event loop share a transaction; each has its own
// result.
import { type Actor, requireScope } from '../actor.ts';
import { type Database, databaseErrorCode, type Db } from '../database/database.ts';
import { batchPerTurn, readOncePerTurn } from '../database/per-turn.ts';
import type { NewEvent } from '../event/event.ts';
import { newId } from '../id.ts';
import { insertJobs, type Job, type JobDraft, requireJob } from '../job/job.ts';
import { randomName } from '../job/name.ts';
import { commit, type Store, type Tx } from '../live/commit.ts';
import { type KeyedInput, requireKey, takeKey, takeKeys } from '../replay/replay.ts';
import { unkeepable, type Warning } from '../spec/spec.ts';
import { withJobNumber } from './number.ts';
import { type JobPlan, planJob, projectOf, readPlanInputs, type Submission, unexpectedHash } from './plan.ts';

export type Submitted = {
  job: Job;
  /** True when `job` is that of an earlier submission with the same key. */
  replayed: boolean;
  warnings: Warning[];
};

/** Idempotency key of a submission, with the name of its mutation and the input that was sent. */
export type SubmissionKey = Pick<KeyedInput, 'mutation' | 'key' | 'input'>;

/** Returns null for a submission without a key. */
export function keyOf(mutation: string, key: string | null, input: Record<string, unknown>): SubmissionKey | null {
  return key === null ? null : { mutation, key, input };
}

/**
 * Submits a job, or returns the job of an earlier submission with the same key. Throws one refusal
 * with all problems of the spec; IDEMPOTENCY_CONFLICT for a key that was used with another input;
 * IN_PROGRESS while the first submission with the key is under way.
 */
export async function submit(
  store: Store,
  actor: Actor,
  submission: Submission,
  key: SubmissionKey | null = null,
): Promise<Submitted> {
  const scope = projectOf(submission.spec);
  requireScope(actor, scope, 'WRITE', [...submission.at, 'projectId']);
  if (key) requireKey(key.key);
  const plan = await planJob(store.database.db, actor, submission, readSharedInputs);
  if (!plan.ready) {
    // `writeAlone` takes the key and rolls back, which leaves the row on disk for a while. A spec
    // with a credential must not get there.
    if (key === null || unkeepable(submission.spec).length > 0) throw plan.refusal;
    return writeAlone(store, actor, submission, plan, { draft: null, key: { ...key, scope, objectId: newId('job') } });
  }
  return withJobNumber(store.database, scope, isNew, async (number): Promise<Submitted> => {
    const draft = draftJob(actor, submission, plan, number);
    const keyed = { draft, key: key && { ...key, scope, objectId: draft.row.id } };
    const job = await writerOf(store)(keyed);
    if (job === null) return writeAlone(store, actor, submission, plan, keyed);
    return { job, replayed: false, warnings: plan.warnings };
  });
}

const isNew = ({ replayed }: Submitted) => !replayed;

/**
 * Submits a job in the transaction `tx` of its cause, e.g. of the due time of a schedule. Throws a
 * refusal before it writes. `number` is a job number that no other job has.
 */
export async function submitWithin(tx: Tx, actor: Actor, submission: Submission, number: number): Promise<Job> {
  const plan = await planJob(tx, actor, submission);
  if (!plan.ready) throw plan.refusal;
  const [job] = await insertJobs(tx, [draftJob(actor, submission, plan, number)]);
  if (!job) throw new Error('An insert returned no row.');
  return job;
}

function draftJob(actor: Actor, submission: Submission, plan: JobPlan & { ready: true }, number: number): JobDraft {
  const { spec, effective, resolved, defaults, policy, specHash } = plan;
  const { template, retried } = submission;
  const [id, projectId] = [newId('job'), spec.project_id];
  const row = {
    id,
    projectId,
    number,
    name: spec.name ?? randomName(),
    state: 'QUEUED' as const,
    model: spec.model,
    dataset: spec.dataset,
    spec: submission.spec,
    effective,
    resolved,
    defaultsVersion: defaults.version,
    policyRevision: policy.revision,
    specHash,
    tags: spec.tags ?? [],
    notes: spec.notes ?? null,
    priority: effective.priority,
    gpus: effective.resources.gpus,
    timeoutSeconds: effective.timeout_seconds ?? null,
    submittedBy: actor.tokenId,
    scheduleId: template?.scheduleId ?? null,
    dueAt: template?.dueAt ?? null,
    retriedFrom: retried?.job.id ?? null,
  };
  const origin = retried ? `the values of ${projectId}/${retried.job.number}` : `defaults ${defaults.version}`;
  const notSecret = (spec.env ?? []).filter((variable) => variable.not_secret).map(({ name }) => name);
  const vouched = notSecret.length > 0 ? [`Said to be no credential: ${notSecret.join(', ')}.`] : [];
  const policyWarnings = plan.warnings.filter(({ code }) => code === 'POLICY_WARNING').map(({ message }) => message);
  const event: NewEvent = {
    type: 'SUBMITTED',
    projectId,
    jobId: id,
    seq: 1,
    actorId: actor.tokenId,
    message: [`Submitted by ${actor.name} with ${origin}.`, ...vouched, ...policyWarnings].join(' '),
    ...(notSecret.length > 0 ? { data: { notSecret } } : {}),
  };
  return { row, event };
}

/**
 * A job to write, with its key: it is written only when the key is new. `draft` is null for a
 * refused submission, which has a result only when its key has a job already.
 */
type Keyed<Draft = JobDraft | null> = { draft: Draft; key: KeyedInput | null };

/**
 * Writes a job in a transaction of its own, which waits while another transaction holds the key.
 * Returns the job of an earlier submission with the key, or the new one. Throws the refusal of the
 * plan when there is neither.
 */
async function writeAlone(
  store: Store,
  actor: Actor,
  submission: Submission,
  plan: JobPlan,
  { draft, key }: Keyed,
): Promise<Submitted> {
  return commit(store, async (tx) => {
    const firstId = key && (await takeKey(tx, key));
    if (firstId !== null) {
      const job = await requireJob(tx, actor, firstId);
      const unexpected = unexpectedHash(submission, job.specHash);
      if (unexpected) throw unexpected;
      return { job, replayed: true, warnings: [] };
    }
    if (!plan.ready) throw plan.refusal; // rolls back, so that the key is free again
    const [job] = draft ? await insertJobs(tx, [draft]) : [];
    if (!job) throw new Error('An insert returned no row.');
    return { job, replayed: false, warnings: plan.warnings };
  });
}

/** Upper bound of jobs in one shared transaction. */
const maxJobs = 64;
/**
 * Longest wait of a shared transaction for a key that another transaction holds. After it, each job
 * of the shared transaction is written alone.
 */
const keyWaitMs = 100;
const writers = new WeakMap<Database, (keyed: Keyed<JobDraft>) => Promise<Job | null>>();

function writerOf(store: Store) {
  const writer =
    writers.get(store.database) ?? batchPerTurn(maxJobs, (all: readonly Keyed<JobDraft>[]) => writeJobs(store, all));
  writers.set(store.database, writer);
  return writer;
}

const readByKey = readOncePerTurn((db: Db, key: string) =>
  readPlanInputs(db, ...(JSON.parse(key) as [string, string | null])),
);

const readSharedInputs: typeof readPlanInputs = (db, ...inputs) => readByKey(db, JSON.stringify(inputs));

/**
 * Writes drafts in one transaction and returns the job of each, in order; null for a draft whose
 * key is taken, and for all when Postgres refused the transaction.
 */
async function writeJobs(store: Store, all: readonly Keyed<JobDraft>[]): Promise<(Job | null)[]> {
  try {
    const jobs = await commit(store, async (tx) => {
      const keys = all.flatMap(({ key }) => key ?? []);
      const taken = await takeKeys(tx, keys, keyWaitMs);
      const drafts = all.flatMap(({ draft, key }) => (key === null || taken.has(key.objectId) ? draft : []));
      return drafts.length > 0 ? insertJobs(tx, drafts) : [];
    });
    const byId = new Map(jobs.map((job) => [job.id, job]));
    return all.map(({ draft }) => byId.get(draft.row.id) ?? null);
  } catch (error) {
    // Classes 22, 23, 40 and 55 of errors roll back for sure. After another one, e.g. a lost
    // connection, jobs may be written: a second try could write them twice.
    if (/^(22|23|40|55)/.test(databaseErrorCode(error) ?? '')) return all.map(() => null);
    throw error;
  }
}
