// Access tokens: 256 random bits with a prefix and a checksum. The text is returned once, at
// creation; the database holds its SHA-256.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { and, eq, isNull, lt, or, sql } from 'drizzle-orm';
import {
  type Actor,
  requirePlatformScope,
  requireScope,
  type TokenScope,
  tokenScopes,
  withIncluded,
} from '../actor.ts';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { readOncePerTurn } from '../database/per-turn.ts';
import { isOneOf } from '../database/rows.ts';
import { invalid, type Issue, notFound, Refusal } from '../errors.ts';
import { recordEvent } from '../event/event.ts';
import { newId } from '../id.ts';
import type { Tx } from '../live/commit.ts';
import { takeKey } from '../replay/replay.ts';
import { rememberCredential } from '../spec/credential-shapes.ts';
import { getProject, requireActive } from './project.ts';
import { accessToken } from './table.ts';

export type AccessToken = typeof accessToken.$inferSelect;

export type NewToken = {
  projectId: string | null;
  /** Projects whose jobs a token of scope RUNNER may claim; null for all. */
  projectIds: string[] | null;
  name: string;
  scopes: TokenScope[];
  expiresAt: Date | null;
  idempotencyKey: string | null;
};

const tokenPrefix = 'astraml_';
const maxRunnerProjects = 100;
const usedEveryMs = 60_000;

/**
 * Creates a token; needs ADMIN in the project, or on the platform for a null `projectId`. `secret`
 * is the text of the token, which is returned only here; null when the mutation was replayed.
 */
export async function createToken(
  tx: Tx,
  actor: Actor,
  input: NewToken,
): Promise<{ token: AccessToken; secret: string | null; replayed: boolean }> {
  const { projectId } = input;
  const runnerProjectIds = input.projectIds && [...new Set(input.projectIds)].sort();
  if (projectId === null) requirePlatformScope(actor, 'ADMIN', ['input', 'projectId']);
  if (projectId !== null) requireScope(actor, projectId, 'ADMIN', ['input', 'projectId']);
  const id = newId('tok');
  if (input.idempotencyKey !== null) {
    const sent = {
      ...input,
      projectIds: runnerProjectIds ?? undefined,
      expiresAt: input.expiresAt?.toISOString(),
      idempotencyKey: undefined,
    };
    const scope = projectId ?? '*';
    const earlierId = await takeKey(tx, {
      scope,
      mutation: 'createToken',
      key: input.idempotencyKey,
      input: JSON.parse(JSON.stringify(sent)) as Record<string, unknown>,
      objectId: id,
    });
    if (earlierId) {
      const earlier = (await loadTokens(tx, [earlierId])).get(earlierId);
      if (!earlier) throw notFound('AccessToken', earlierId);
      return { token: earlier, secret: null, replayed: true };
    }
  }
  const issues = tokenIssues(input);
  if (issues.length > 0) throw invalid(issues);
  if (projectId !== null) await requireProject(tx, actor, projectId, ['input', 'projectId']);
  for (const runnerProject of runnerProjectIds ?? [])
    await requireProject(tx, actor, runnerProject, ['input', 'projectIds']);
  const secret = newTokenText();
  const token = await insertToken(tx, secret, { id, ...input, runnerProjectIds });
  await recordEvent(tx, {
    type: 'TOKEN_CREATED',
    projectId,
    actorId: actor.tokenId,
    message: `Token ${token.name} was created with ${token.scopes.join(', ')}${runnerProjectIds ? ` for ${runnerProjectIds.join(', ')}` : ''}.`,
    data: { tokenId: token.id, ...(runnerProjectIds ? { projectIds: runnerProjectIds } : {}) },
  });
  return { token, secret, replayed: false };
}

async function requireProject(tx: Tx, actor: Actor, id: string, path: string[]): Promise<void> {
  const project = await getProject(tx, actor, id);
  if (!project) throw notFound('Project', id, path);
  requireActive(project, path);
}

function tokenIssues(input: NewToken): Issue[] {
  const issues: Issue[] = [];
  const at = (field: string) => ['input', field];
  if (input.name.length < 1 || input.name.length > 200 || input.name.includes('\0') || !input.name.isWellFormed()) {
    issues.push({ code: 'OUT_OF_RANGE', path: at('name'), message: 'name takes 1 to 200 characters.' });
  }
  if (input.scopes.length === 0) {
    const hint = `Name at least one of ${tokenScopes.join(', ')}.`;
    issues.push({ code: 'REQUIRED', path: at('scopes'), message: 'scopes is empty.', hint });
  }
  if (input.scopes.includes('RUNNER') && (input.projectId !== null || input.scopes.length > 1)) {
    const message = 'RUNNER stands alone, in a token of the whole platform.';
    const hint = input.scopes.length > 1 ? 'Create two tokens.' : 'Name the projects of a runner in projectIds.';
    issues.push({ code: 'NOT_ALLOWED', path: at('scopes'), message, hint });
  }
  issues.push(...runnerIssues(input));
  if (input.expiresAt && input.expiresAt.getTime() <= Date.now()) {
    issues.push({ code: 'OUT_OF_RANGE', path: at('expiresAt'), message: 'expiresAt is in the past.' });
  }
  return issues;
}

function runnerIssues({ projectId, projectIds, scopes }: NewToken): Issue[] {
  const path = ['input', 'projectIds'];
  if (projectIds === null) return [];
  if (projectId !== null) {
    return [{ code: 'NOT_ALLOWED', path, message: 'projectId and projectIds exclude each other.' }];
  }
  if (!scopes.includes('RUNNER')) {
    const hint = 'For other scopes create one token for each project, with projectId.';
    return [{ code: 'NOT_ALLOWED', path, message: 'projectIds binds a runner: it takes the scope RUNNER.', hint }];
  }
  if (projectIds.length >= 1 && projectIds.length <= maxRunnerProjects) return [];
  const message = `projectIds takes 1 to ${maxRunnerProjects} projects, got ${projectIds.length}.`;
  return [{ code: 'OUT_OF_RANGE', path, message, hint: 'Leave it out for a runner of all projects.' }];
}

/** Makes a token text: the prefix, 32 random bytes in base64url, and a checksum of 6 characters. */
export function newTokenText(): string {
  const body = randomBytes(32).toString('base64url');
  return tokenPrefix + body + checksum(body);
}

function checksum(body: string): string {
  return crc32(body).toString(36).padStart(7, '0').slice(-6);
}

/**
 * Inserts a token with this text unless there is one, e.g. the bootstrap token of a new
 * installation.
 */
export async function ensureToken(
  tx: Tx,
  text: string,
  values: { name: string; scopes: TokenScope[]; projectId: string | null },
): Promise<void> {
  // A bootstrap token may have any form, so the search for credentials is told its text.
  rememberCredential(text);
  const [existing] = await tx
    .select()
    .from(accessToken)
    .where(eq(accessToken.hash, hashToken(text)));
  if (!existing) await insertToken(tx, text, { id: newId('tok'), expiresAt: null, runnerProjectIds: null, ...values });
}

async function insertToken(
  tx: Tx,
  text: string,
  values: Pick<NewToken, 'name' | 'scopes' | 'projectId' | 'expiresAt'> & {
    id: string;
    runnerProjectIds: string[] | null;
  },
): Promise<AccessToken> {
  const { id, name, scopes, projectId, runnerProjectIds, expiresAt } = values;
  const row = {
    id,
    name,
    scopes,
    projectId,
    runnerProjectIds,
    expiresAt,
    hash: hashToken(text),
    prefix: text.slice(0, 12),
  };
  const [inserted] = await tx.insert(accessToken).values(row).onConflictDoNothing().returning();
  if (!inserted) throw new Error('A token with this text exists already.');
  return inserted;
}

function hashToken(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/**
 * Returns the actor of the token with this text. Throws UNAUTHENTICATED for an unknown, revoked or
 * expired token.
 */
export async function authenticate(db: Db, text: string): Promise<{ actor: Actor; lastUsedAt: Date | null }> {
  const token = looksWhole(text) ? await findToken(db, text) : undefined;
  if (!token) {
    throw new Refusal('UNAUTHENTICATED', 'The access token is not valid.', {
      hint: 'Check that it was copied whole, and that it is a token of this server.',
    });
  }
  if (token.revokedAt) {
    throw new Refusal('UNAUTHENTICATED', 'The access token was revoked.', { hint: 'Ask for a new one.' });
  }
  if (token.expiresAt && token.expiresAt.getTime() <= Date.now()) {
    throw new Refusal('UNAUTHENTICATED', `The access token expired at ${token.expiresAt.toISOString()}.`, {
      hint: 'Ask for a new one.',
    });
  }
  return { actor: toActor(token), lastUsedAt: token.lastUsedAt };
}

/**
 * Whether the text can be a token, which saves a query for a mistyped one. A bootstrap token has
 * any form of 32 to 1,024 characters, without a checksum.
 */
function looksWhole(text: string): boolean {
  const ours = text.startsWith(tokenPrefix) && text.length === tokenPrefix.length + 43 + 6;
  if (!ours) return text.length >= 32 && text.length <= 1024;
  const body = text.slice(tokenPrefix.length, -6);
  return text === tokenPrefix + body + checksum(body);
}

/** One query for all operations of a turn that come with the same token. */
const readToken = readOncePerTurn(async (db: Db, hash: string) => {
  const [token] = await db.select().from(accessToken).where(eq(accessToken.hash, hash));
  return token;
});

async function findToken(db: Db, text: string): Promise<AccessToken | undefined> {
  const hash = hashToken(text);
  const token = await readToken(db, hash);
  return token && timingSafeEqual(Buffer.from(token.hash), Buffer.from(hash)) ? token : undefined;
}

function toActor(token: AccessToken): Actor {
  return {
    tokenId: token.id,
    name: token.name,
    projectId: token.projectId,
    runnerProjectIds: token.runnerProjectIds,
    scopes: withIncluded(token.scopes as TokenScope[]),
    expiresAt: token.expiresAt,
  };
}

/** Whether `lastUsedAt` is older than a minute, so that `touchToken` should run. */
export function isUseStale(lastUsedAt: Date | null): boolean {
  return lastUsedAt === null || Date.now() - lastUsedAt.getTime() > usedEveryMs;
}

/** Sets the time of the last use to now, at most once a minute. */
export async function touchToken(tx: Tx, tokenId: string): Promise<void> {
  const stale = or(
    isNull(accessToken.lastUsedAt),
    lt(accessToken.lastUsedAt, sql`${now} - ${`${usedEveryMs} ms`}::interval`),
  );
  await tx
    .update(accessToken)
    .set({ lastUsedAt: now })
    .where(and(eq(accessToken.id, tokenId), stale));
}

/** Returns the tokens with these ids, by id. */
export async function loadTokens(db: Db, ids: readonly string[]): Promise<Map<string, AccessToken>> {
  const rows = await db.select().from(accessToken).where(isOneOf(accessToken.id, ids));
  return new Map(rows.map((row) => [row.id, row]));
}
