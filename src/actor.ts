// Actor: the holder of a token, with its project and scopes. Every rule about permission is a
// function in this file.
import { notFound, Refusal } from './errors.ts';

export const tokenScopes = ['READ', 'WRITE', 'ADMIN', 'RUNNER'] as const;
export type TokenScope = (typeof tokenScopes)[number];

export type Actor = {
  /** Id of the access token in use. */
  readonly tokenId: string;
  readonly name: string;
  /** The one project of the token; null for a token of the whole platform. */
  readonly projectId: string | null;
  /** Projects whose jobs a token of scope RUNNER may claim; null for all. */
  readonly runnerProjectIds: readonly string[] | null;
  /** Scopes of the token with what they include: ADMIN includes WRITE, WRITE includes READ. */
  readonly scopes: ReadonlySet<TokenScope>;
  readonly expiresAt: Date | null;
};

/**
 * Adds the scopes that others include: ADMIN includes WRITE, WRITE includes READ. RUNNER includes
 * none.
 */
export function withIncluded(scopes: readonly TokenScope[]): Set<TokenScope> {
  const all = new Set(scopes);
  if (all.has('ADMIN')) all.add('WRITE');
  if (all.has('WRITE')) all.add('READ');
  return all;
}

/** Whether the actor may read the project. */
export function canSee(actor: Actor, projectId: string): boolean {
  return actor.scopes.has('READ') && (actor.projectId === null || actor.projectId === projectId);
}

/**
 * Throws unless the actor has the scope in the project: NOT_FOUND when it may not see the project,
 * as for one that does not exist; PERMISSION_DENIED when it may see it but lacks the scope.
 */
export function requireScope(actor: Actor, projectId: string, scope: TokenScope, path?: string[]): void {
  if (!canSee(actor, projectId)) throw notFound('Project', projectId, path);
  if (!actor.scopes.has(scope)) throw permissionDenied(scope, path);
}

/** Throws PERMISSION_DENIED unless the token is one of the whole platform and has this scope. */
export function requirePlatformScope(actor: Actor, scope: TokenScope, path?: string[]): void {
  if (actor.projectId !== null || !actor.scopes.has(scope)) throw permissionDenied(scope, path);
}

function permissionDenied(scope: TokenScope, path?: string[]): Refusal {
  return new Refusal('PERMISSION_DENIED', `This needs a token with scope ${scope}.`, {
    requiredScope: scope,
    path,
    hint: 'Ask an administrator for a token with this scope.',
  });
}

/** Returns the actor; throws UNAUTHENTICATED for null. */
export function requireActor(actor: Actor | null): Actor {
  if (actor) return actor;
  throw new Refusal('UNAUTHENTICATED', 'This needs an access token.', {
    hint: 'Send it as "Authorization: Bearer <token>", over WebSocket in the payload of connection_init.',
  });
}

/**
 * Returns the account to which an operation is charged: its token, or `nobody` for all callers
 * without one.
 */
export function accountOf(actor: Actor | null): string {
  return actor?.tokenId ?? 'nobody';
}
