// What people do with a job after its submission: they name and sort it anew, or submit it again.
import { type Actor, requireScope } from '../actor.ts';
import { invalid, type Issue, notFound, Refusal } from '../errors.ts';
import { newId } from '../id.ts';
import type { Tx } from '../live/commit.ts';
import { checkRules, sortViolations } from '../policy/check.ts';
import { getCurrentPolicy } from '../policy/policy.ts';
import { getProject, requireActive } from '../project/project.ts';
import { takeKey } from '../replay/replay.ts';
import { atInput } from '../spec/input.ts';
import { withChanges } from '../spec/resolve.ts';
import { parseSpec, unkeepable } from '../spec/spec.ts';
import { addEvent, changeJob, createJob, type Job, type LockedJob, requireJob } from './job.ts';
import { isTerminal } from './state.ts';

const at = ['input', 'id'];

/** What is undefined stays as it is; empty notes take the notes away. */
export type JobEdit = {
  id: string;
  name?: string | undefined;
  tags?: string[] | undefined;
  notes?: string | undefined;
  priority?: number | undefined;
};

/** Changes what people say of a job, in any state, and its priority while it is queued. What is so already is no event. */
export async function updateJob(tx: Tx, actor: Actor, input: JobEdit): Promise<Job> {
  const known = await requireJob(tx, actor, input.id, at);
  requireScope(actor, known.projectId, 'WRITE', at);
  const project = await getProject(tx, actor, known.projectId);
  if (!project) throw notFound('Job', input.id, at);
  requireActive(project, at);
  const { id, ...fields } = input;
  const { model, dataset } = known;
  const issues = parseSpec({ project_id: project.id, model, dataset, ...fields }).issues;
  if (issues.length > 0) throw invalid(issues.map((issue) => ({ ...issue, path: ['input', ...issue.path] })));
  await changeJob(tx, id, async (locked) => {
    const changed = editLocked(locked, fields);
    if ('priority' in changed) await requireAllowed(tx, locked);
    const names = Object.keys(changed);
    if (names.length === 0) return;
    const message = `${actor.name} changed ${names.join(', ')}.`;
    await addEvent(tx, locked, { type: 'EDITED', actorId: actor.tokenId, message, data: changed });
  });
  return requireJob(tx, actor, id);
}

/** Puts the new values in place; what changed, from what to what. */
function editLocked({ job }: LockedJob, edit: Omit<JobEdit, 'id'>): Record<string, { from: unknown; to: unknown }> {
  const { name = job.name, tags = job.tags, notes = job.notes, priority = job.priority } = edit;
  const wanted = { name, tags, notes: notes === '' ? null : notes, priority };
  const changed: Record<string, { from: unknown; to: unknown }> = {};
  for (const [field, to] of Object.entries(wanted)) {
    const from = job[field as keyof typeof wanted];
    if (JSON.stringify(from) !== JSON.stringify(to)) changed[field] = { from, to };
  }
  if (!changed['priority']) {
    Object.assign(job, wanted);
    return changed;
  }
  if (job.state !== 'QUEUED') {
    throw new Refusal('INVALID_STATE', `The priority counts while a job is queued only; this one is ${job.state}.`, {
      path: ['input', 'priority'],
      currentState: job.state,
    });
  }
  const resolved = withChanges(job.resolved, new Map([['priority', { source: 'REQUEST', value: priority }]]));
  Object.assign(job, wanted, { effective: { ...job.effective, priority }, resolved });
  return changed;
}

/** A policy that bounds the priority bounds it here too. */
async function requireAllowed(tx: Tx, { job }: LockedJob): Promise<void> {
  const project = { id: job.projectId, createdAt: job.createdAt };
  const rules = (await getCurrentPolicy(tx, project)).rules.filter(({ path }) => path === 'priority');
  const request = new Map([['priority', { source: 'REQUEST' as const, value: job.priority }]]);
  const { denied } = sortViolations(checkRules(rules, request, job.resolved), ['input']);
  const issues = denied.map(({ message }): Issue => ({
    code: 'NOT_ALLOWED',
    path: ['input', 'priority'],
    specPath: 'priority',
    message,
  }));
  if (issues.length > 0) throw invalid(issues);
}

export type Retry = {
  id: string;
  /** What is changed of the job's values, in the shape of the job spec file. */
  changes: { hyperparams?: Record<string, unknown>; resources?: Record<string, unknown> };
  /** Problems found where the changes were read. */
  issues: Issue[];
  idempotencyKey: string | null;
  /** A number that nobody else has. */
  number: number;
};

/**
 * Submits a finished job again as a new one. It takes the values that the first was resolved to, whatever defaults and
 * policy say by now; the policy in force may refuse them.
 */
export async function retryJob(tx: Tx, actor: Actor, retry: Retry): Promise<{ job: Job; replayed: boolean }> {
  const first = await requireJob(tx, actor, retry.id, at);
  requireScope(actor, first.projectId, 'WRITE', at);
  const id = newId('job');
  const open = unkeepable(retry.changes); // before the key's row holds it
  if (open.length > 0) throw invalid(open.map((issue) => atInput(issue, ['input'])));
  if (retry.idempotencyKey !== null) {
    const keyed = { scope: first.projectId, mutation: 'retryJob', key: retry.idempotencyKey };
    const known = await takeKey(tx, { ...keyed, input: { id: first.id, ...retry.changes }, objectId: id });
    if (known) return { job: await requireJob(tx, actor, known), replayed: true };
  }
  if (!isTerminal(first.state)) {
    throw new Refusal('INVALID_STATE', `The job has not ended yet: it is ${first.state}.`, {
      path: at,
      hint: 'Wait for its end, or cancel it first.',
      currentState: first.state,
    });
  }
  const { changes, issues, number } = retry;
  const submission = {
    spec: changedSpec(first, changes),
    issues,
    number,
    at: ['input'],
    retried: { job: first, changes },
  };
  const { job } = await createJob(tx, actor, submission, id);
  return { job, replayed: false };
}

/** The first job's spec with the changes, as one could submit it: with its version, name, tags and notes of now. */
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
