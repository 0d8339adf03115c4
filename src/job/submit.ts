// Submissions that come at once are written together: one transaction for all of a turn of the event loop. Each has its
// own outcome. What cannot be written so at once goes alone, by `submitJob`, which says why.
import { type Actor, requireScope } from '../actor.ts';
import { type Database, databaseErrorCode, type Db } from '../database/database.ts';
import { readOncePerTurn, batchPerTurn } from '../database/per-turn.ts';
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

/** Accepts a job: `submitJob`, with its number and in a transaction that it may share. */
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

/** Null for a submission that is refused, a repeat, or in the way of another one: nothing is written of it. */
async function accept(store: Store, actor: Actor, submission: Submission) {
  const plan = await planJob(store.database.db, actor, submission, readSharedGround);
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

/** A job to be written, if its key is free. */
type Keyed = { draft: JobDraft; key: KeyedInput | null };

const mostJobs = 64;
/** All wait for a key that another transaction holds: after this each goes alone, and its sender waits for longer. */
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
const readSharedGround: typeof readPlanInputs = (db, ...of) => readByKey(db, JSON.stringify(of));

/** The job of each, or null for all where the database refused one of them and so undid all. */
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
    // After any other error nobody knows whether the jobs were written.
    if (/^(22|23|40|55)/.test(databaseErrorCode(error) ?? '')) return all.map(() => null);
    throw error;
  }
}
