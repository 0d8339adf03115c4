// Edits of a job after its submission: name, tags, notes and priority.
import { type Actor, requireScope } from '../actor.ts';
import { invalid, type Issue, notFound, Refusal } from '../errors.ts';
import { addEvent, changeJob, type Job, type LockedJob, requireJob } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import { checkRules, sortViolations } from '../policy/check.ts';
import { getCurrentPolicy } from '../policy/policy.ts';
import { getProject, requireActive } from '../project/project.ts';
import { withChanges } from '../spec/resolve.ts';
import { parseSpec } from '../spec/spec.ts';

const idPath = ['input', 'id'];

/** Undefined fields stay as they are; empty notes remove the notes. */
export type JobEdit = {
  id: string;
  name?: string | undefined;
  tags?: string[] | undefined;
  notes?: string | undefined;
  priority?: number | undefined;
};

/**
 * Changes name, tags and notes of a job in any state, and its priority while it is queued. Writes
 * an event only for values that differ. Throws INVALID_STATE for the priority of a job that is not
 * queued.
 */
export async function updateJob(tx: Tx, actor: Actor, input: JobEdit): Promise<Job> {
  const current = await requireJob(tx, actor, input.id, idPath);
  requireScope(actor, current.projectId, 'WRITE', idPath);
  const project = await getProject(tx, actor, current.projectId);
  if (!project) throw notFound('Job', input.id, idPath);
  requireActive(project, idPath);
  const { id, ...fields } = input;
  const { model, dataset } = current;
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

/**
 * Assigns the new values to the locked job. Returns the fields that differ, each with its old and
 * new value.
 */
function editLocked({ job }: LockedJob, edit: Omit<JobEdit, 'id'>): Record<string, { from: unknown; to: unknown }> {
  const { name = job.name, tags = job.tags, notes = job.notes, priority = job.priority } = edit;
  const values = { name, tags, notes: notes === '' ? null : notes, priority };
  const changed: Record<string, { from: unknown; to: unknown }> = {};
  for (const [field, to] of Object.entries(values)) {
    const from = job[field as keyof typeof values];
    if (JSON.stringify(from) !== JSON.stringify(to)) changed[field] = { from, to };
  }
  if (!changed['priority']) {
    Object.assign(job, values);
    return changed;
  }
  if (job.state !== 'QUEUED') {
    throw new Refusal('INVALID_STATE', `The priority counts while a job is queued only; this one is ${job.state}.`, {
      path: ['input', 'priority'],
      currentState: job.state,
    });
  }
  const resolved = withChanges(job.resolved, new Map([['priority', { source: 'REQUEST', value: priority }]]));
  Object.assign(job, values, { effective: { ...job.effective, priority }, resolved });
  return changed;
}

/** Throws INVALID_INPUT when the project's policy does not allow the new priority. */
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
