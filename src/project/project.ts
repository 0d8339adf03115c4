// Projects, the unit of access. Every reading function takes the actor, and treats a project that
// the actor may not see as one that does not exist.
import { and, asc, eq, isNull, sql } from 'drizzle-orm';
import { type Actor, canSee, requirePlatformScope, requireScope } from '../actor.ts';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { isOneOf } from '../database/rows.ts';
import { invalid, type Issue, notFound, Refusal } from '../errors.ts';
import { recordEvent } from '../event/event.ts';
import type { Tx } from '../live/commit.ts';
import { findCredentials } from '../spec/credential.ts';
import { accessToken, project } from './table.ts';

export type Project = typeof project.$inferSelect;
export type NewProject = { id: string; name?: string | null; command?: string[] | null };
/** Undefined fields stay as they are; a null `command` removes the command of the project. */
export type ProjectChange = {
  id: string;
  name?: string | undefined;
  command?: string[] | null | undefined;
  archived?: boolean | undefined;
};

/** Creates a project; needs ADMIN on the platform. Throws ALREADY_EXISTS for a key in use. */
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

/**
 * Changes a project, archives it or brings it back; needs ADMIN. An archived project accepts only
 * the change that brings it back, alone or with others. Throws INVALID_STATE otherwise. Writes an
 * event only for values that differ.
 */
export async function updateProject(tx: Tx, actor: Actor, input: ProjectChange): Promise<Project> {
  const path = ['input', 'id'];
  requireScope(actor, input.id, 'ADMIN', path);
  const current = await getProject(tx, actor, input.id);
  if (!current) throw notFound('Project', input.id, path);
  const issues = projectIssues(input);
  if (issues.length > 0) throw invalid(issues);
  await tx.select({ id: project.id }).from(project).where(eq(project.id, current.id)).for('no key update');
  const before = (await loadProjects(tx, [current.id])).get(current.id) ?? current;

  const { name = before.name, command = before.command, archived = before.archivedAt !== null } = input;
  const changes = Object.entries({ name, command, archived }).flatMap(([field, to]) => {
    const from = field === 'archived' ? before.archivedAt !== null : before[field as 'name' | 'command'];
    return JSON.stringify(from) === JSON.stringify(to) ? [] : [[field, { from, to }]];
  });
  if (changes.length === 0) return before;
  if (archived) requireActive(before, path);
  const archivedAt = archived ? (before.archivedAt ?? now) : null;
  const [changed] = await tx
    .update(project)
    .set({ name, command, archivedAt })
    .where(eq(project.id, before.id))
    .returning();
  if (!changed) throw new Error('An update returned no row.');
  await recordEvent(tx, {
    type: 'PROJECT_UPDATED',
    projectId: changed.id,
    actorId: actor.tokenId,
    message: `Project ${changed.id} was changed: ${changes.map(([field]) => String(field)).join(', ')}.`,
    data: Object.fromEntries(changes) as Record<string, unknown>,
  });
  return changed;
}

/** Throws INVALID_STATE for an archived project, which is read-only and takes no jobs. */
export function requireActive({ id, archivedAt }: Pick<Project, 'id' | 'archivedAt'>, path?: string[]): void {
  const refusal = archivedAt === null ? null : archivedRefusal(id, path);
  if (refusal) throw refusal;
}

export function archivedRefusal(id: string, path?: string[]): Refusal {
  return new Refusal('INVALID_STATE', `Project ${id} is archived: it is read-only, and takes no jobs.`, {
    path,
    hint: 'An administrator of the project can bring it back: updateProject with archived: false.',
    currentState: 'ARCHIVED',
  });
}

function projectIssues(input: NewProject): Issue[] {
  const issues = findCredentials({ name: input.name, command: input.command }, ['input']);
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

/** Returns the project; null when it does not exist or the actor may not see it. */
export async function getProject(db: Db, actor: Actor, id: string): Promise<Project | null> {
  if (!canSee(actor, id) || id.includes('\0')) return null;
  const [row] = await db.select().from(project).where(eq(project.id, id));
  return row ?? null;
}

/**
 * Lists projects that the actor can see, by key: up to `limit` and one more, which tells that
 * another page follows.
 */
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

/** Counts the projects that the actor can see. */
export async function countProjects(db: Db, actor: Actor): Promise<number> {
  if (!actor.scopes.has('READ')) return 0;
  return db.$count(project, actor.projectId === null ? undefined : eq(project.id, actor.projectId));
}

/** Returns the projects with these ids, by id. Checks no permission: the caller does. */
export async function loadProjects(db: Db, ids: readonly string[]): Promise<Map<string, Project>> {
  const rows = await db.select().from(project).where(isOneOf(project.id, ids));
  return new Map(rows.map((row) => [row.id, row]));
}

/**
 * Lists the tokens of a project, or of the whole platform for null, oldest first, without revoked
 * ones.
 */
export async function listTokens(db: Db, projectId: string | null) {
  return db
    .select()
    .from(accessToken)
    .where(
      and(
        projectId === null ? isNull(accessToken.projectId) : eq(accessToken.projectId, projectId),
        isNull(accessToken.revokedAt),
      ),
    )
    .orderBy(asc(accessToken.id));
}
