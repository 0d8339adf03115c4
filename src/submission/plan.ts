// Plans a submission: resolves its values and checks them against the rules of the project, or
// collects every reason to refuse it. Writes nothing.
import { type Actor, canSee } from '../actor.ts';
import type { Db } from '../database/database.ts';
import {
  type Defaults,
  defaultsLayer,
  getDefaults,
  listDefaults,
  requireUsable,
  versionHint,
} from '../defaults/defaults.ts';
import { invalid, type Issue, notFound, quote, Refusal } from '../errors.ts';
import type { Job } from '../job/job.ts';
import { checkRules, policyViolated, sortViolations } from '../policy/check.ts';
import { emptyPolicy, findCurrentPolicy, type Policy, policyLayer } from '../policy/policy.ts';
import { archivedRefusal, loadProjects, type Project } from '../project/project.ts';
import { hashOf } from '../replay/replay.ts';
import { unknownSecrets } from '../secret/secret.ts';
import { atInput } from '../spec/input.ts';
import {
  effectiveSpec,
  type Layer,
  layerOf,
  resolve,
  type ResolvedValue,
  trainingPart,
  withChanges,
} from '../spec/resolve.ts';
import type { EffectiveSpec, Spec } from '../spec/shape.ts';
import { parseSpec, type Warning } from '../spec/spec.ts';

export type Submission = {
  /** The content of the job spec file, as sent. */
  spec: Record<string, unknown>;
  /**
   * Problems that the caller found while it read the spec, e.g. a value in `extra` that a field has
   * too.
   */
  issues?: Issue[];
  /** Path of the spec in the request, e.g. `['input', 'spec']`. */
  at: readonly string[];
  /** Hash of a preview: a spec that resolves to another one is refused. */
  expectedSpecHash?: string | null;
  /** Schedule whose template the spec is; absent for a spec that a caller sent. */
  template?: Template;
  /** Finished job whose values are taken, with the values that the caller changes. */
  retried?: { job: Job; changes: Record<string, unknown> };
};

export type Template = {
  scheduleId: string;
  /** Version of the defaults for a spec that names none. */
  defaultsVersion: string;
  /** Due time for which the job is submitted; null when a caller triggered it. */
  dueAt: Date | null;
};

/**
 * Returns INVALID_STATE when the submission expects another hash, since its preview showed another
 * job; else null.
 */
export function unexpectedHash(
  { expectedSpecHash: expected }: Pick<Submission, 'expectedSpecHash'>,
  specHash: string,
): Refusal | null {
  if (expected === null || expected === undefined || expected === specHash) return null;
  return new Refusal('INVALID_STATE', `The spec resolves to ${specHash} now, not to ${quote(expected)}.`, {
    path: ['input', 'expectedSpecHash'],
    hint: 'Defaults, policy or spec changed since: preview it again, and submit with the hash of that preview.',
    currentState: specHash,
  });
}

export type JobPlan = {
  resolved: ResolvedValue[];
  warnings: Warning[];
  defaults: Defaults | null;
  /** Current policy of the project; null when the caller may not see the project. */
  policy: Policy | null;
} & (
  | { ready: true; spec: Spec; effective: EffectiveSpec; defaults: Defaults; policy: Policy; specHash: string }
  | { ready: false; refusal: Refusal; specHash: null }
);

/** The rows that a spec is resolved and checked with; null for each that does not exist. */
export type PlanInputs = { project: Project | null; defaults: Defaults | null; policy: Policy | null };

/**
 * Reads what a spec is resolved with, as committed when this is called. A null `version` asks for
 * the current defaults.
 */
export async function readPlanInputs(db: Db, projectId: string, version: string | null): Promise<PlanInputs> {
  if (projectId.includes('\0')) return { project: null, defaults: null, policy: null };
  // The three queries are sent at once, so that a submission waits for one round trip.
  const [projects, defaults, policy] = await Promise.all([
    loadProjects(db, [projectId]),
    getDefaults(db, version),
    findCurrentPolicy(db, projectId),
  ]);
  return { project: projects.get(projectId) ?? null, defaults, policy };
}

/** Longest name of a version of the defaults, in characters. */
const maxVersion = 50;

/**
 * Plans a submission. A refused plan holds the refusal, and resolved values if the spec was valid.
 */
export async function planJob(
  db: Db,
  actor: Actor,
  submission: Omit<Submission, 'template'> & { template?: Pick<Template, 'defaultsVersion'> },
  read = readPlanInputs,
): Promise<JobPlan> {
  const projectId = projectOf(submission.spec);
  const version = submission.spec['defaults_version'] ?? submission.template?.defaultsVersion;
  // `parseSpec` refuses other values
  const named = typeof version === 'string' && version.length <= maxVersion ? version : null;
  const { project, defaults, policy: current } = await read(db, projectId, named);
  if (!project || !canSee(actor, projectId))
    return refusedPlan(notFound('Project', projectId, [...submission.at, 'projectId']));
  if (project.archivedAt) return refusedPlan(archivedRefusal(project.id, [...submission.at, 'projectId']));

  const parsed = parseSpec(submission.spec);
  const policy = current ?? emptyPolicy(project);
  const policyValues = policyLayer(policy);
  const issues = [
    ...parsed.issues.map((issue) => atInput(issue, submission.at)),
    ...(submission.issues ?? []).map((issue) => ({ ...issue, path: [...submission.at, ...issue.path] })),
    ...(defaults ? [] : [await unknownVersion(db, named ?? '', submission.at)]),
    ...(project.command || policyValues.has('command') || submission.spec['command'] || submission.retried
      ? []
      : [missingCommand(project, submission.at)]),
    ...(await unknownSecrets(db, projectId, parsed.spec?.env ?? [])).map((issue) => atInput(issue, submission.at)),
  ];
  if (!parsed.spec || !defaults || issues.length > 0) return refusedPlan(invalid(issues), { defaults, policy });
  requireUsable(defaults);

  const { spec } = parsed;
  const request = layerOf(spec, submission.template ? 'SCHEDULE' : 'REQUEST');
  const resolved = submission.retried
    ? withChanges(submission.retried.job.resolved, layerOf(submission.retried.changes, 'REQUEST'))
    : resolve([...layersOverDefaults(request, policy, project), defaultsLayer(defaults)]);
  const effective = effectiveSpec(resolved, spec);
  const advice = parsed.warnings.map((warning) => ({
    ...warning,
    path: warning.path && atInput({ code: 'NOT_ALLOWED', message: '', path: warning.path }, submission.at).path,
  }));
  const violations = sortViolations(checkRules(policy.rules, request, resolved), submission.at);
  const warnings = [...advice, ...violations.warnings];
  if (violations.denied.length > 0) {
    const refusal = policyViolated(violations.denied, submission.at);
    return refusedPlan(refusal, { resolved, warnings, defaults, policy });
  }
  const specHash = hashOf(trainingPart(effective));
  const unexpected = unexpectedHash(submission, specHash);
  if (unexpected) return refusedPlan(unexpected, { resolved, warnings, defaults, policy });
  return { ready: true, spec, resolved, effective, warnings, defaults, policy, specHash };
}

/**
 * Returns the layers that beat the defaults of any version, strongest first: the request, the
 * policy, the command of the project.
 */
export function layersOverDefaults(request: Layer, policy: Policy, { command }: Project): Layer[] {
  return [request, policyLayer(policy), layerOf(command ? { command } : {}, 'PROJECT')];
}

/** Makes a refused plan. `parts` are the values that were computed before the refusal. */
export function refusedPlan(refusal: Refusal, parts: Partial<JobPlan> = {}): JobPlan {
  const nothing = { resolved: [], warnings: [], defaults: null, policy: null };
  return { ...nothing, ...parts, ready: false, refusal, specHash: null };
}

export function projectOf(spec: Record<string, unknown>): string {
  const projectId = spec['project_id'];
  return typeof projectId === 'string' ? projectId : '';
}

async function unknownVersion(db: Db, version: string, at: readonly string[]): Promise<Issue> {
  return {
    code: 'UNKNOWN_VERSION',
    path: [...at, 'defaultsVersion'],
    specPath: 'defaults_version',
    message: 'defaults_version is not a published version of the defaults.',
    hint: versionHint(version, await listDefaults(db)),
  };
}

function missingCommand(project: Project, at: readonly string[]): Issue {
  return {
    code: 'REQUIRED',
    path: [...at, 'command'],
    specPath: 'command',
    message: `command is required: project ${project.id} has none for jobs that give none.`,
    hint: 'Give the command as a list of words, e.g. ["python", "train.py"].',
  };
}
