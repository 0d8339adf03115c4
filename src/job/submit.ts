// Submissions that arrive in one turn of the event loop are written in one transaction, each with an outcome of its own. A
// submission that cannot be written this way (refused, repeated, or blocked by another one) is tried alone by
// `submitJob`, which gives the reason.
import { type Actor, requireScope } from '../actor.ts';
import { type Database, databaseErrorCode, type Db } from '../database/database.ts';
import { batchPerTurn, readOncePerTurn } from '../database/per-turn.ts';
import { newId } from '../id.ts';
import { commit, type Store } from '../live/commit.ts';
import { isKey, type KeyedInput, takeKeys } from '../replay/replay.ts';
import type { Warning } from '../spec/spec.ts';
import {
  draftJob,
  insertJobs,
  isExpected,
  type Job,
  type JobDraft,
  planJob,
  projectOf,
  readPlanInputs,
  type Submission,
  submitJob,
} from './job.ts';
import { withJobNumber } from './number.ts';

/** Submits a job: takes its number, then writes it in a transaction that other submissions may share. */
export function submit(
  store: Store,
  actor: Actor,
  submission: Omit<Submission, 'number'>,
): Promise<{ job: Job; replayed: boolean; warnings: Warning[] }> {
  const projectId = projectOf(submission.spec);
  requireScope(actor, projectId, 'WRITE', [...submission.at, 'projectId']);
  return withJobNumber(store.database, projectId, async (number) => {
    const numbered = { ...submission, number };
    const accepted = await accept(store, actor, numbered);
    return accepted ?? commit(store, (tx) => submitJob(tx, actor, numbered));
  });
}

/** Null when the submission is refused, repeats a key, or waits for another one. Nothing of it was written then. */
async function accept(store: Store, actor: Actor, submission: Submission) {
  const plan = await planJob(store.database.db, actor, submission, readSharedInputs);
  if (!plan.ready || !isExpected(submission, plan.specHash)) return null;
  const draft = draftJob(actor, submission, plan, newId('job'));
  const { id: objectId, projectId: scope, spec: input } = draft.row;
  const { idempotencyKey: key } = submission;
  if (key !== null && !isKey(key)) return null;
  const job = await writerOf(store)({
    draft,
    key: key === null ? null : { scope, mutation: 'submitJob', key, input, objectId },
  });
  return job && { job, replayed: false, warnings: plan.warnings };
}

/** A planned job, written only if its idempotency key is free. */
type Keyed = { draft: JobDraft; key: KeyedInput | null };

const mostJobs = 64;
/** Longest wait of the shared transaction for a key that another transaction holds. Then each submission is tried alone. */
const keyWaitMs = 100;
const writers = new WeakMap<Database, (keyed: Keyed) => Promise<Job | null>>();

function writerOf(store: Store) {
  const known = writers.get(store.database);
  const writer = known ?? batchPerTurn(mostJobs, (all: readonly Keyed[]) => writeJobs(store, all));
  writers.set(store.database, writer);
  return writer;
}

const readByKey = readOncePerTurn((db: Db, key: string) =>
  readPlanInputs(db, ...(JSON.parse(key) as [string, string | null])),
);
const readSharedInputs: typeof readPlanInputs = (db, ...inputs) => readByKey(db, JSON.stringify(inputs));

/** The job of each submission; null for all when the database refused one of them, which rolled all of them back. */
async function writeJobs(store: Store, all: readonly Keyed[]): Promise<(Job | null)[]> {
  try {
    const written = await commit(store, async (tx) => {
      const keys = all.flatMap(({ key }) => key ?? []);
      const taken = await takeKeys(tx, keys, keyWaitMs);
      const drafts = all.flatMap(({ draft, key }) => (key === null || taken.has(key.objectId) ? draft : []));
      return drafts.length > 0 ? insertJobs(tx, drafts) : [];
    });
    const jobs = new Map(written.map((job) => [job.id, job]));
    return all.map(({ draft }) => jobs.get(draft.row.id) ?? null);
  } catch (error) {
    // After another error, e.g. a lost connection, the jobs may have been written: trying again could write them twice.
    if (/^(22|23|40|55)/.test(databaseErrorCode(error) ?? '')) return all.map(() => null);
    throw error;
  }
}
