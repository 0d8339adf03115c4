// Actor: who asks, for which projects, with which scopes. Every rule about "may they?" is one of the functions here.
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

/** ADMIN includes WRITE, WRITE includes READ; RUNNER stands alone. */
export function withIncluded(scopes: readonly TokenScope[]): Set<TokenScope> {
  const all = new Set(scopes);
  if (all.has('ADMIN')) all.add('WRITE');
  if (all.has('WRITE')) all.add('READ');
  return all;
}

/** Whether the actor may see anything of the project. */
export function canSee(actor: Actor, projectId: string): boolean {
  return actor.scopes.has('READ') && (actor.projectId === null || actor.projectId === projectId);
}

/**
 * Throws unless the actor has the scope in the project: NOT_FOUND for a project it may not see (as for one that does
 * not exist), PERMISSION_DENIED for one that it may see.
 */
export function requireScope(actor: Actor, projectId: string, scope: TokenScope, path?: string[]): void {
  if (!canSee(actor, projectId)) throw notFound('Project', projectId, path);
  if (!actor.scopes.has(scope)) throw permissionDenied(scope, path);
}

/** Throws PERMISSION_DENIED unless the actor's token is one of the whole platform with this scope. */
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

/** Throws UNAUTHENTICATED for nobody. */
export function requireActor(actor: Actor | null): Actor {
  if (actor) return actor;
  throw new Refusal('UNAUTHENTICATED', 'This needs an access token.', {
    hint: 'Send it as "Authorization: Bearer <token>", over WebSocket in the payload of connection_init.',
  });
}

/** Whom an operation is counted for: its token, or all who have none together. */
export function accountOf(actor: Actor | null): string {
  return actor?.tokenId ?? 'nobody';
}
