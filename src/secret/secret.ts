// Secrets: values that a job gets and that no caller can read back. A value is encrypted before it
// reaches the database, and decrypted only for the runner that gets the job. No message, event or
// refusal here holds a value.
import { and, asc, eq } from 'drizzle-orm';
import { type Actor, canSee, requireScope } from '../actor.ts';
import { closest } from '../closest.ts';
import type { SecretKey } from '../config.ts';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import { invalid, type Issue, notFound, Refusal } from '../errors.ts';
import { recordEvent } from '../event/event.ts';
import { newId } from '../id.ts';
import type { Tx } from '../live/commit.ts';
import { getProject, requireActive } from '../project/project.ts';
import { project } from '../project/table.ts';
import { isMaskable, minSecretLength } from '../protocol/secret.ts';
import type { Spec } from '../spec/shape.ts';
import type { Warning } from '../spec/spec.ts';
import { open, seal } from './cipher.ts';
import { secret } from './table.ts';

/** A secret without its encrypted parts. */
export type Secret = Pick<
  typeof secret.$inferSelect,
  'id' | 'projectId' | 'name' | 'version' | 'createdAt' | 'updatedAt' | 'lastUsedAt'
>;

const publicColumns = {
  id: secret.id,
  projectId: secret.projectId,
  name: secret.name,
  version: secret.version,
  createdAt: secret.createdAt,
  updatedAt: secret.updatedAt,
  lastUsedAt: secret.lastUsedAt,
};

const namePattern = /^[A-Z][A-Z0-9_]{0,99}$/;
const maxBytes = 65_536;

export type NewSecret = { projectId: string; name: string; value: string };

/**
 * Sets a value, always as a new version: comparing it with the current one would need its key.
 * Throws INVALID_INPUT for a name or value that cannot be used, and INVALID_STATE for an archived
 * project or a gateway without a key to encrypt with.
 */
export async function setSecret(tx: Tx, actor: Actor, input: NewSecret, keys: readonly SecretKey[]): Promise<Secret> {
  const { projectId, name, value } = input;
  await requireAdmin(tx, actor, projectId);
  const issues = [...nameIssues(name), ...valueIssues(value)];
  if (issues.length > 0) throw invalid(issues);
  const [key] = keys;
  if (!key) throw noKey();

  await lockSecrets(tx, projectId);
  const existing = await getSecret(tx, projectId, name);
  const version = (existing?.version ?? 0) + 1;
  const sealed = seal(key, { projectId, name, version }, value);
  const [row] = existing
    ? await tx
        .update(secret)
        .set({ version, ...sealed, updatedAt: now })
        .where(eq(secret.id, existing.id))
        .returning(publicColumns)
    : await tx
        .insert(secret)
        .values({ id: newId('sec'), projectId, name, version, ...sealed })
        .returning(publicColumns);
  if (!row) throw new Error('A secret was written and is not there.');
  await recordEvent(tx, {
    type: 'SECRET_SET',
    projectId,
    actorId: actor.tokenId,
    message: `Secret ${name} was set: version ${version}.`,
    data: { name, version },
  });
  return row;
}

/** Deletes the secret for ever and returns its id. Jobs that still refer to it fail to start. */
export async function deleteSecret(
  tx: Tx,
  actor: Actor,
  { projectId, name }: Pick<NewSecret, 'projectId' | 'name'>,
): Promise<string> {
  await requireAdmin(tx, actor, projectId);
  await lockSecrets(tx, projectId);
  const existing = await getSecret(tx, projectId, name);
  if (!existing) {
    const near = closest(name, await listSecretNames(tx, projectId));
    throw notFound('Secret', name, ['input', 'name'], near ? `Did you mean "${near}"?` : undefined);
  }
  await tx.delete(secret).where(eq(secret.id, existing.id));
  await recordEvent(tx, {
    type: 'SECRET_DELETED',
    projectId,
    actorId: actor.tokenId,
    message: `Secret ${name} was deleted.`,
    data: { name, version: existing.version },
  });
  return existing.id;
}

async function requireAdmin(db: Db, actor: Actor, projectId: string): Promise<void> {
  const path = ['input', 'projectId'];
  requireScope(actor, projectId, 'ADMIN', path);
  const owner = await getProject(db, actor, projectId);
  if (!owner) throw notFound('Project', projectId, path);
  requireActive(owner, path);
}

/**
 * Locks the project, so that two changes never give the same version. New jobs take a weaker lock
 * and need not wait.
 */
async function lockSecrets(tx: Tx, projectId: string): Promise<void> {
  await tx.select({ id: project.id }).from(project).where(eq(project.id, projectId)).for('no key update');
}

function nameIssues(name: string): Issue[] {
  if (namePattern.test(name)) return [];
  const message = 'name takes upper-case letters, digits and underscores, a letter first, 100 characters at most.';
  return [{ code: 'MALFORMED', path: ['input', 'name'], message, hint: 'For example HF_TOKEN.' }];
}

function valueIssues(value: string): Issue[] {
  const path = ['input', 'value'];
  if (value === '') return [{ code: 'REQUIRED', path, message: 'value is empty.', hint: 'Send the value itself.' }];
  const size = Buffer.byteLength(value);
  if (size > maxBytes) {
    const hint = 'Keep larger things where the job can fetch them, and the key to them here.';
    return [{ code: 'OUT_OF_RANGE', path, message: `value has ${size} bytes; ${maxBytes} are the most.`, hint }];
  }
  if (value.includes('\0') || !value.isWellFormed()) {
    const message = 'value holds a NUL character or half a surrogate pair, which no environment variable can.';
    return [{ code: 'MALFORMED', path, message, hint: 'Encode bytes as text first, e.g. with base64.' }];
  }
  return [];
}

/** Warns of a value that is too short to be masked. Tells nothing else of the value. */
export function secretWarnings({ name, value }: Pick<NewSecret, 'name' | 'value'>): Warning[] {
  if (isMaskable(value)) return [];
  const message = `${name} has no line of ${minSecretLength} characters or more, so it is not masked when a job prints it: set a longer value.`;
  return [{ code: 'SECRET_TOO_SHORT', message, path: ['input', 'value'] }];
}

function noKey(): Refusal {
  return new Refusal('INVALID_STATE', 'This gateway has no key to encrypt secrets with.', {
    path: ['input', 'value'],
    hint: 'Set ASTRAML_SECRET_KEYS to k1:<what `openssl rand -base64 32` prints> and start it again.',
  });
}

/** Lists the secrets of a project, by name. The caller has checked that they may be seen. */
export async function listSecrets(db: Db, projectId: string): Promise<Secret[]> {
  return db.select(publicColumns).from(secret).where(eq(secret.projectId, projectId)).orderBy(asc(secret.name));
}

async function listSecretNames(db: Db, projectId: string): Promise<string[]> {
  return (await listSecrets(db, projectId)).map(({ name }) => name);
}

async function getSecret(db: Db, projectId: string, name: string): Promise<Secret | null> {
  if (!namePattern.test(name)) return null;
  const [row] = await db
    .select(publicColumns)
    .from(secret)
    .where(and(eq(secret.projectId, projectId), eq(secret.name, name)));
  return row ?? null;
}

/** Returns the secret with this id; null when there is none or the actor may not see it. */
export async function getSecretById(db: Db, actor: Actor, id: string): Promise<Secret | null> {
  const [row] = await db.select(publicColumns).from(secret).where(eq(secret.id, id));
  return row && maySeeSecrets(actor, row.projectId) ? row : null;
}

/**
 * Whether the actor sees names, versions and last use of secrets: whether it may submit jobs that
 * use them. No actor sees values.
 */
export function maySeeSecrets(actor: Actor, projectId: string): boolean {
  return canSee(actor, projectId) && actor.scopes.has('WRITE');
}

type Variable = NonNullable<Spec['env']>[number];

/**
 * Returns an issue for each variable that names a secret which the project lacks; paths as in the
 * job spec file.
 */
export async function unknownSecrets(db: Db, projectId: string, variables: readonly Variable[]): Promise<Issue[]> {
  if (variables.every(({ from }) => from.secret === undefined)) return [];
  const names = await listSecretNames(db, projectId);
  return variables.flatMap(({ from: { secret: name } }, index): Issue[] => {
    if (name === undefined || names.includes(name)) return [];
    const path = ['env', String(index), 'from', 'secret'];
    const specPath = path.join('.');
    const near = closest(name, names);
    // A text that is no name may be the secret value itself, put here by mistake: it is not
    // repeated.
    const message = namePattern.test(name)
      ? `Project ${projectId} has no secret ${name}.`
      : `${specPath} names no secret of project ${projectId}.`;
    const hint = near
      ? `Did you mean "${near}"?`
      : 'An administrator of the project sets it first: setSecret, or astraml secrets set.';
    return [{ code: 'UNKNOWN_SECRET', path, specPath, message, hint }];
  });
}

export type OpenedSecrets = { values: Map<string, string>; problem: null } | { problem: string; hint: string };

/**
 * Decrypts secrets for a runner with a lease, and records that they were used. `problem` names the
 * first secret that is missing or cannot be decrypted; none counts as used then.
 */
export async function openSecrets(
  tx: Tx,
  projectId: string,
  names: readonly string[],
  keys: readonly SecretKey[],
): Promise<OpenedSecrets> {
  const values = new Map<string, string>();
  if (names.length === 0) return { values, problem: null };
  const isNamed = and(eq(secret.projectId, projectId), isOneOf(secret.name, names));
  const rows = new Map((await tx.select().from(secret).where(isNamed)).map((row) => [row.name, row]));
  for (const name of names) {
    const row = rows.get(name);
    if (!row) return { problem: `Secret ${name} was deleted.`, hint: `Set ${name} again, then submit the job again.` };
    const opened = open(keys, { projectId, name, version: row.version }, row);
    if ('problem' in opened) return unopened(name, row.keyId, opened.problem);
    values.set(name, opened.value);
  }
  await tx.update(secret).set({ lastUsedAt: now }).where(isNamed);
  return { values, problem: null };
}

function unopened(name: string, keyId: string, problem: 'KEY_MISSING' | 'DAMAGED'): OpenedSecrets {
  if (problem === 'KEY_MISSING') {
    return {
      problem: `Secret ${name} is encrypted with key ${keyId}, which the gateway does not have.`,
      hint: `Put key ${keyId} back into ASTRAML_SECRET_KEYS, or set ${name} again.`,
    };
  }
  return {
    problem: `Secret ${name} does not open with key ${keyId}: the key is another one, or the secret is damaged.`,
    hint: `Check key ${keyId} in ASTRAML_SECRET_KEYS, or set ${name} again.`,
  };
}
