// What people do with a job after its submission: they name and sort it anew, or submit it again.
import { type Actor, requireScope } from '../actor.ts';
import { invalid, type Issue, notFound, Refusal } from '../errors.ts';
import { addEvent, changeJob, type Job, type LockedJob, requireJob } from '../job/job.ts';
import type { Tx } from '../live/commit.ts';
import { checkRules, sortViolations } from '../policy/check.ts';
import { getCurrentPolicy } from '../policy/policy.ts';
import { getProject, requireActive } from '../project/project.ts';
import { withChanges } from '../spec/resolve.ts';
import { parseSpec } from '../spec/spec.ts';

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
