// Retries: a finished job is submitted again as a new job.
import { type Actor, requireScope } from '../actor.ts';
import { type Issue, Refusal } from '../errors.ts';
import { type Job, requireJob } from '../job/job.ts';
import { isTerminal } from '../job/state.ts';
import type { Store } from '../live/commit.ts';
import { keyOf, submit, type Submitted } from './submit.ts';

export type Retry = {
  id: string;
  /** Values to change, in the shape of the job spec file. */
  changes: { hyperparams?: Record<string, unknown>; resources?: Record<string, unknown> };
  /**
   * Problems that the caller found while it read the changes. They are refused with those of the
   * spec.
   */
  issues: Issue[];
  idempotencyKey: string | null;
};

/**
 * Submits a finished job again as a new job. The new job takes the values that the first was
 * resolved to, whatever defaults and policy say by now; the current policy may refuse them. Throws
 * INVALID_STATE for a job that has not ended.
 */
export async function retryJob(store: Store, actor: Actor, retry: Retry): Promise<Submitted> {
  const path = ['input', 'id'];
  const first = await requireJob(store.database.db, actor, retry.id, path);
  requireScope(actor, first.projectId, 'WRITE', path);
  if (!isTerminal(first.state)) {
    throw new Refusal('INVALID_STATE', `The job has not ended yet: it is ${first.state}.`, {
      path,
      hint: 'Wait for its end, or cancel it first.',
      currentState: first.state,
    });
  }
  const { changes, issues, idempotencyKey } = retry;
  const submission = { spec: changedSpec(first, changes), issues, at: ['input'], retried: { job: first, changes } };
  const key = keyOf('retryJob', idempotencyKey, { id: first.id, ...changes });
  return submit(store, actor, submission, key);
}

/**
 * Returns the spec of the first job with the changes. Name, tags and notes are the present ones,
 * since they can be edited.
 */
function changedSpec(first: Job, { hyperparams = {}, resources = {} }: Retry['changes']): Record<string, unknown> {
  const own = (name: string) => objectOf(first.spec[name]);
  const stopping = { ...objectOf(own('hyperparams')['early_stopping']), ...objectOf(hyperparams['early_stopping']) };
  return {
    ...first.spec,
    defaults_version: first.defaultsVersion,
    name: first.name,
    ...(first.tags.length > 0 ? { tags: first.tags } : {}),
    ...(first.notes === null ? {} : { notes: first.notes }),
    hyperparams: {
      ...own('hyperparams'),
      ...hyperparams,
      ...(Object.keys(stopping).length > 0 ? { early_stopping: stopping } : {}),
    },
    resources: { ...own('resources'), ...resources },
  };
}

function objectOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {};
}
