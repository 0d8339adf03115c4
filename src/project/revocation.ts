// Revokes access tokens. Each request reads its token, so the next one is refused. Open sockets get
// a message over a channel, and read their tokens again every few seconds, since a message may be
// lost.
import { and, arrayContains, eq, isNotNull, isNull } from 'drizzle-orm';
import { type Actor, requireScope } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import { notFound, Refusal } from '../errors.ts';
import { recordEvent } from '../event/event.ts';
import type { Tx } from '../live/commit.ts';
import { accessToken } from './table.ts';
import { type AccessToken, loadTokens } from './token.ts';

/** Message on the channel of tokens. */
export type Revocation = { type: 'revoked'; tokenId: string };

/**
 * Revokes a token at once; needs ADMIN in its project, or on the platform for a token of the
 * platform. Does nothing for a revoked one. Throws INVALID_STATE for the last token without an
 * expiry that has ADMIN on the platform, since nobody could create another.
 */
export async function revokeToken(tx: Tx, actor: Actor, id: string): Promise<void> {
  const path = ['input', 'id'];
  const token = id.includes('\0') ? undefined : (await loadTokens(tx, [id])).get(id);
  if (!token || !isVisible(actor, token)) throw notFound('AccessToken', id, path);
  if (token.projectId !== null) requireScope(actor, token.projectId, 'ADMIN', path);
  if (token.revokedAt) return;
  if (token.projectId === null && token.scopes.includes('ADMIN')) await requireAnother(tx, token, path);
  const revoked = await tx
    .update(accessToken)
    .set({ revokedAt: now })
    .where(and(eq(accessToken.id, id), isNull(accessToken.revokedAt)))
    .returning({ id: accessToken.id });
  if (revoked.length === 0) return; // another transaction revoked it meanwhile
  await recordEvent(tx, {
    type: 'TOKEN_REVOKED',
    projectId: token.projectId,
    actorId: actor.tokenId,
    message: `Token ${token.name} was revoked.`,
    data: { tokenId: id },
  });
  tx.notify(channels.tokens, {}, [JSON.stringify({ type: 'revoked', tokenId: id } satisfies Revocation)]);
}

/**
 * Whether the actor may know that the token exists: readers of its project, and administrators of
 * the platform for a token of the platform.
 */
function isVisible(actor: Actor, { projectId }: AccessToken): boolean {
  if (projectId === null) return actor.projectId === null && actor.scopes.has('ADMIN');
  return actor.scopes.has('READ') && (actor.projectId === null || actor.projectId === projectId);
}

async function requireAnother(tx: Tx, token: AccessToken, path: string[]): Promise<void> {
  const administrators = await tx
    .select({ id: accessToken.id, expiresAt: accessToken.expiresAt })
    .from(accessToken)
    .where(
      and(isNull(accessToken.projectId), isNull(accessToken.revokedAt), arrayContains(accessToken.scopes, ['ADMIN'])),
    )
    .orderBy(accessToken.id)
    // The lock makes a second revocation at the same time wait, so that it sees that its token is
    // the last.
    .for('update');
  const lasting = administrators.filter(({ id, expiresAt }) => id !== token.id && expiresAt === null);
  if (lasting.length > 0 || token.expiresAt !== null) return;
  throw new Refusal('INVALID_STATE', 'This is the last token without an end that administers the platform.', {
    path,
    hint: 'Create another one with scope ADMIN first, then revoke this one with it.',
    currentState: 'IN_USE',
  });
}

/** Returns those of the ids whose tokens are revoked. */
export async function readRevoked(db: Db, ids: readonly string[]): Promise<string[]> {
  const rows = await db
    .select({ id: accessToken.id })
    .from(accessToken)
    .where(and(isOneOf(accessToken.id, ids), isNotNull(accessToken.revokedAt)));
  return rows.map((row) => row.id);
}
