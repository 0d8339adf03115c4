// Trials that write nothing: which past jobs new rules would refuse, and which values of a spec
// another version of the defaults would change.
import type { Actor } from '../actor.ts';
import type { Db } from '../database/database.ts';
import { type Defaults, defaultsLayer, requireUsable } from '../defaults/defaults.ts';
import { notFound, type PolicyRule, Refusal } from '../errors.ts';
import type { Job } from '../job/job.ts';
import { listJobs } from '../job/list.ts';
import { checkAgain } from '../policy/check.ts';
import { getCurrentPolicy } from '../policy/policy.ts';
import { getProject } from '../project/project.ts';
import { canonical } from '../replay/replay.ts';
import { atInput } from '../spec/input.ts';
import { type Layer, layerOf, resolve, type ResolvedValue } from '../spec/resolve.ts';
import { parseSpec } from '../spec/spec.ts';
import { layersOverDefaults, projectOf, type Submission } from './plan.ts';

/** Number of the newest jobs on which new rules are tried. */
export const lastJobs = 100;

/**
 * Returns the jobs among the last 100 of the project that the rules would refuse, newest first.
 * Each is checked with its own request and the defaults that it was resolved with.
 */
export async function listRefused(
  db: Db,
  actor: Actor,
  projectId: string,
  rules: readonly PolicyRule[],
): Promise<Job[]> {
  const newest = { field: 'CREATED_AT', descending: true, backward: false, limit: lastJobs } as const;
  const jobs = await listJobs(db, actor, { ...newest, filter: { projectIds: [projectId] } });
  return jobs.slice(0, lastJobs).filter(({ resolved }) => {
    return checkAgain(rules, resolved).some(({ rule }) => rule.enforcement === 'DENY');
  });
}

export type MigrationItem = {
  path: string;
  /** Effective value with the old version; null when that version is not published here. */
  before: unknown;
  after: unknown;
  /** True when the spec sets the value, so that no version changes it. */
  pinned: boolean;
  /** True when the value changes, or may change because `before` is unknown. */
  changes: boolean;
};

/**
 * Returns every value that one of the two versions of the defaults gives, ordered by path. `from`
 * is null for a version that is not published here: its values are unknown. `defaults_version` of
 * the spec is ignored. Throws BAD_USER_INPUT for a spec with problems, NOT_FOUND for a project that
 * the actor may not see.
 */
export async function previewMigration(
  db: Db,
  actor: Actor,
  submission: Pick<Submission, 'spec' | 'issues' | 'at'>,
  versions: { from: Defaults | null; to: Defaults },
): Promise<MigrationItem[]> {
  const projectId = projectOf(submission.spec);
  const project = await getProject(db, actor, projectId);
  if (!project) throw notFound('Project', projectId, [...submission.at, 'projectId']);
  const { defaults_version: _, ...unversioned } = submission.spec;
  const { spec, issues } = parseSpec(unversioned);
  const [problem] = [...issues, ...(submission.issues ?? [])];
  if (!spec || problem) throw badSpec(problem, submission.at);

  const request = layerOf(spec, 'REQUEST');
  const strong = layersOverDefaults(request, await getCurrentPolicy(db, project), project);
  const { from, to } = versions;
  for (const version of [from, to]) if (version) requireUsable(version);
  const [before, after] = [from && defaultsLayer(from), defaultsLayer(to)];
  const defaultPaths = new Set([...after.keys(), ...(before?.keys() ?? [])]);
  return itemsOf(request, resolve([...strong, ...(before ? [before] : [])]), resolve([...strong, after])).filter(
    ({ path }) => defaultPaths.has(path),
  );
}

function itemsOf(request: Layer, before: ResolvedValue[], after: ResolvedValue[]): MigrationItem[] {
  const [left, right] = [before, after].map((values) => new Map(values.map(({ path, value }) => [path, value])));
  const paths = [...new Set([...(left?.keys() ?? []), ...(right?.keys() ?? [])])].sort();
  return paths.map((path) => {
    const [was, becomes] = [left?.get(path) ?? null, right?.get(path) ?? null];
    return {
      path,
      before: was,
      after: becomes,
      pinned: request.has(path),
      changes: left?.has(path) !== right?.has(path) || canonical(was) !== canonical(becomes),
    };
  });
}

function badSpec(problem: ReturnType<typeof parseSpec>['issues'][number] | undefined, at: readonly string[]): Refusal {
  if (!problem) return new Refusal('BAD_USER_INPUT', 'The spec cannot be read.', { path: [...at] });
  const { path } = atInput(problem, at);
  return new Refusal('BAD_USER_INPUT', problem.message, { path, hint: problem.hint });
}
