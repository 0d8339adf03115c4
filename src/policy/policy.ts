// Policies: defaults that a project gives its jobs, and limits on what they may ask for. All rules
// are set at once, as one revision. A revision never changes, so that a job can name the one it was
// resolved with.
import { and, desc, eq, lt, sql } from 'drizzle-orm';
import { type Actor, canSee, requireScope } from '../actor.ts';
import type { Db } from '../database/database.ts';
import { notFound, type PolicyRule, Refusal } from '../errors.ts';
import { recordEvent } from '../event/event.ts';
import type { Tx } from '../live/commit.ts';
import { getProject, loadProjects, type Project, requireActive } from '../project/project.ts';
import { project } from '../project/table.ts';
import { canonical } from '../replay/replay.ts';
import type { Layer } from '../spec/resolve.ts';
import { readRules, type RuleInput } from './rule.ts';
import { policy } from './table.ts';

export type Policy = {
  /** `pol_<project>_<revision>`. */
  id: string;
  projectId: string;
  /** Number of the revision; 0 is the empty policy of a new project. */
  revision: number;
  /** Ordered by path. */
  rules: PolicyRule[];
  createdAt: Date;
  /** Token that set it; null for revision 0. */
  createdBy: string | null;
};

export type NewPolicy = {
  projectId: string;
  rules: RuleInput[];
  ifRevision: number | null;
};

/**
 * Replaces the rules of the project, as one new revision; rules that equal the current ones make
 * none. Throws INVALID_INPUT with every problem of the rules, and INVALID_STATE when `ifRevision`
 * is not the current revision.
 */
export async function setPolicy(tx: Tx, actor: Actor, input: NewPolicy): Promise<Policy> {
  const { projectId, ifRevision } = input;
  const { owner, rules } = await readNewPolicy(tx, actor, input);
  requireActive(owner, ['input', 'projectId']);

  // The lock lets one change happen at a time, so that revisions have no gap. New jobs need not
  // wait: their foreign key takes a weaker lock.
  await tx.select({ id: project.id }).from(project).where(eq(project.id, projectId)).for('no key update');
  const current = await getCurrentPolicy(tx, owner);
  const isSame = canonical(current.rules) === canonical(rules);
  if (isSame && isRepeat(current, actor, ifRevision)) return current;
  if (ifRevision !== null && ifRevision !== current.revision) throw otherRevision(ifRevision, current.revision);
  if (isSame) return current;

  const values = { projectId, revision: current.revision + 1, rules, createdBy: actor.tokenId };
  const [row] = await tx.insert(policy).values(values).returning();
  if (!row) throw new Error('An insert returned no row.');
  await recordEvent(tx, {
    type: 'POLICY_SET',
    projectId,
    actorId: actor.tokenId,
    message: `The policy was set: revision ${row.revision}, ${rules.length} ${rules.length === 1 ? 'rule' : 'rules'}.`,
    data: { revision: row.revision },
  });
  return toPolicy(row);
}

/**
 * Dry run of `setPolicy`: returns the policy that stays in force, and in `tried` the rules as they
 * would be stored.
 */
export async function tryPolicy(
  db: Db,
  actor: Actor,
  input: NewPolicy,
): Promise<{ policy: Policy; tried: PolicyRule[] }> {
  const { owner, rules } = await readNewPolicy(db, actor, input);
  const current = await getCurrentPolicy(db, owner);
  const { ifRevision } = input;
  if (ifRevision !== null && ifRevision !== current.revision) throw otherRevision(ifRevision, current.revision);
  return { policy: current, tried: rules };
}

async function readNewPolicy(db: Db, actor: Actor, { projectId, rules }: NewPolicy) {
  requireScope(actor, projectId, 'ADMIN', ['input', 'projectId']);
  const owner = await getProject(db, actor, projectId);
  if (!owner) throw notFound('Project', projectId, ['input', 'projectId']);
  return { owner, rules: await readRules(rules, ['input', 'rules']) };
}

/**
 * Whether this call repeats one whose answer was lost: the caller made the current revision from
 * `ifRevision`.
 */
function isRepeat(current: Policy, actor: Actor, ifRevision: number | null): boolean {
  return ifRevision === current.revision - 1 && current.createdBy === actor.tokenId;
}

function otherRevision(expected: number, revision: number): Refusal {
  return new Refusal('INVALID_STATE', `The policy is at revision ${revision}, not at ${expected}.`, {
    path: ['input', 'ifRevision'],
    hint: 'Read the policy again, make your change to it, and send it with its revision.',
    currentState: `revision ${revision}`,
  });
}

/** Returns the policy in force at the time of the call. */
export async function getCurrentPolicy(db: Db, project: Pick<Project, 'id' | 'createdAt'>): Promise<Policy> {
  return (await findCurrentPolicy(db, project.id)) ?? emptyPolicy(project);
}

/** Returns the newest revision; null when only the empty policy exists. */
export async function findCurrentPolicy(db: Db, projectId: string): Promise<Policy | null> {
  if (projectId.includes('\0')) return null; // Postgres cannot hold NUL in text
  const [row] = await db
    .select()
    .from(policy)
    .where(eq(policy.projectId, projectId))
    .orderBy(desc(policy.revision))
    .limit(1);
  return row ? toPolicy(row) : null;
}

/**
 * Returns a revision, or for null the current one; null when it does not exist. The caller may see
 * the project.
 */
export async function getPolicy(
  db: Db,
  project: Pick<Project, 'id' | 'createdAt'>,
  revision: number | null,
): Promise<Policy | null> {
  if (revision === null) return getCurrentPolicy(db, project);
  if (revision === 0) return emptyPolicy(project);
  const [row] = await db
    .select()
    .from(policy)
    .where(and(eq(policy.projectId, project.id), eq(policy.revision, revision)));
  return row ? toPolicy(row) : null;
}

/**
 * Lists revisions, newest first down to the empty one, one more than the limit when there are more;
 * `before` is a revision.
 */
export async function listPolicies(
  db: Db,
  project: Pick<Project, 'id' | 'createdAt'>,
  page: { limit: number; before?: number | undefined },
): Promise<Policy[]> {
  if (page.before === 0) return [];
  const below = page.before === undefined ? undefined : lt(policy.revision, page.before);
  const rows = await db
    .select()
    .from(policy)
    .where(and(eq(policy.projectId, project.id), below))
    .orderBy(desc(policy.revision))
    .limit(page.limit + 1);
  return [...rows.map(toPolicy), emptyPolicy(project)].slice(0, page.limit + 1);
}

/** Loads policies by their ids. The caller has checked that they may be seen. */
export async function loadPolicies(db: Db, ids: readonly string[]): Promise<Map<string, Policy>> {
  const parsedIds = ids.flatMap((id) => parsePolicyId(id) ?? []);
  const stored = parsedIds.filter(({ revision }) => revision > 0);
  const pairs = sql`select * from jsonb_to_recordset(${JSON.stringify(stored)}::jsonb) as k("projectId" text, revision integer)`;
  const isStored = sql`(${policy.projectId}, ${policy.revision}) in (${pairs})`;
  const rows = stored.length > 0 ? await db.select().from(policy).where(isStored) : [];
  const empty = parsedIds.filter(({ revision }) => revision === 0).map(({ projectId }) => projectId);
  const projects = empty.length > 0 ? await loadProjects(db, empty) : new Map<string, Project>();
  const policies = [...rows.map(toPolicy), ...[...projects.values()].map(emptyPolicy)];
  return new Map(policies.map((one) => [one.id, one]));
}

/** Returns the policy with this id; null when there is none or the actor may not see it. */
export async function getPolicyById(db: Db, actor: Actor, id: string): Promise<Policy | null> {
  const row = (await loadPolicies(db, [id])).get(id);
  return row && canSee(actor, row.projectId) ? row : null;
}

export function policyId(projectId: string, revision: number): string {
  return `pol_${projectId}_${revision}`;
}

function parsePolicyId(id: string): { projectId: string; revision: number } | null {
  const [, projectId, digits] = /^pol_(p-[a-z0-9-]{1,62})_(0|[1-9]\d{0,8})$/.exec(id) ?? [];
  return projectId && digits ? { projectId, revision: Number(digits) } : null;
}

/** Returns the defaults of a policy as a layer. */
export function policyLayer({ rules }: Pick<Policy, 'rules'>): Layer {
  const rulesWithDefault = rules.map(withDefault).filter((rule) => rule.hasDefault);
  return new Map(rulesWithDefault.map((rule) => [rule.path, { source: 'POLICY', value: rule.default }]));
}

/**
 * Makes the maximum of `metrics.max_names` the default too. No version of the defaults has this
 * value, since the operator's variable bounds it; without a value a job is checked by no rule, and
 * a maximum would bind no job.
 */
function withDefault(rule: PolicyRule): PolicyRule {
  const { path, hasDefault, max, allowed, enforcement } = rule;
  const binds = path === 'metrics.max_names' && !hasDefault && !allowed && enforcement === 'DENY';
  return binds && max !== null ? { ...rule, hasDefault: true, default: Math.floor(max) } : rule;
}

function toPolicy(row: typeof policy.$inferSelect): Policy {
  // Rules of revisions from before rules could warn have no `enforcement`: they refuse.
  const rules = row.rules.map((rule) => ({ ...rule, enforcement: rule.enforcement ?? 'DENY' }));
  return { id: policyId(row.projectId, row.revision), ...row, rules };
}

export function emptyPolicy({ id, createdAt }: Pick<Project, 'id' | 'createdAt'>): Policy {
  return { id: policyId(id, 0), projectId: id, revision: 0, rules: [], createdAt, createdBy: null };
}
