// Projects: the unit of access. Every read takes the actor; what it may not see does not exist for it.
import { asc, eq, inArray, sql } from 'drizzle-orm';
import { type Actor, canSee, requirePlatformScope } from '../actor.ts';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { invalid, type Issue, Refusal } from '../errors.ts';
import { recordEvent } from '../event/event.ts';
import type { Tx } from '../live/commit.ts';
import { accessToken, project } from './table.ts';

export type Project = typeof project.$inferSelect;
export type NewProject = { id: string; name?: string | null; command?: string[] | null };

/** Creates a project; needs an administrator of the platform. Throws ALREADY_EXISTS for a key in use. */
export async function createProject(tx: Tx, actor: Actor, input: NewProject): Promise<Project> {
  requirePlatformScope(actor, 'ADMIN', ['input']);
  const issues = projectIssues(input);
  if (issues.length > 0) throw invalid(issues);
  const values = { id: input.id, name: input.name ?? input.id, command: input.command ?? null };
  const [created] = await tx.insert(project).values(values).onConflictDoNothing().returning();
  if (!created) {
    const path = ['input', 'id'];
    throw new Refusal('ALREADY_EXISTS', `Project "${input.id}" exists already.`, { path, hint: 'Use another key.' });
  }
  await recordEvent(tx, {
    type: 'PROJECT_CREATED',
    projectId: created.id,
    actorId: actor.tokenId,
    message: `Project ${created.id} was created.`,
  });
  return created;
}

function projectIssues(input: NewProject): Issue[] {
  const issues: Issue[] = [];
  if (!/^p-[a-z0-9][a-z0-9-]{0,61}$/.test(input.id)) {
    const hint = 'Use p- and then lower-case letters, digits and hyphens, 64 characters at most, e.g. p-demo.';
    issues.push({ code: 'MALFORMED', path: ['input', 'id'], message: 'id is not a project key.', hint });
  }
  if (input.name !== null && input.name !== undefined && !isText(input.name, 200)) {
    issues.push({ code: 'OUT_OF_RANGE', path: ['input', 'name'], message: 'name takes 1 to 200 characters.' });
  }
  const { command } = input;
  if (command && (!command[0] || !command.every((word) => word === '' || isText(word, 32_768)))) {
    const message = 'command takes what is to be run and its arguments, each of at most 32768 characters.';
    issues.push({ code: 'OUT_OF_RANGE', path: ['input', 'command'], message });
  }
  return issues;
}

function isText(text: string, max: number): boolean {
  return text.length >= 1 && text.length <= max && !text.includes('\0') && text.isWellFormed();
}

/** The project, or null when there is none or the actor may not see it. */
export async function getProject(db: Db, actor: Actor, id: string): Promise<Project | null> {
  if (!canSee(actor, id) || id.includes('\0')) return null;
  const [found] = await db.select().from(project).where(eq(project.id, id));
  return found ?? null;
}

/** Projects that the actor can see, by key, one more than the limit. */
export async function listProjects(
  db: Db,
  actor: Actor,
  page: { limit: number; backward: boolean; after?: string[]; before?: string[] },
): Promise<Project[]> {
  if (!actor.scopes.has('READ')) return [];
  const order = keyset([project.id], { ...page, descending: false });
  const mine = actor.projectId === null ? sql`true` : eq(project.id, actor.projectId);
  const rows = await db
    .select()
    .from(project)
    .where(sql.join([mine, ...order.where], sql` and `))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  return order.inOrder(rows);
}

/** Number of projects that the actor can see. */
export async function countProjects(db: Db, actor: Actor): Promise<number> {
  if (!actor.scopes.has('READ')) return 0;
  return db.$count(project, actor.projectId === null ? undefined : eq(project.id, actor.projectId));
}

/** Projects by id, for objects whose project the caller may see. */
export async function loadProjects(db: Db, ids: readonly string[]): Promise<Map<string, Project>> {
  const rows = await db
    .select()
    .from(project)
    .where(inArray(project.id, [...ids]));
  return new Map(rows.map((row) => [row.id, row]));
}

/** Tokens of a project, or of the whole platform for null, oldest first. */
export async function listTokens(db: Db, projectId: string | null) {
  return db
    .select()
    .from(accessToken)
    .where(projectId === null ? sql`${accessToken.projectId} is null` : eq(accessToken.projectId, projectId))
    .orderBy(asc(accessToken.id));
}
