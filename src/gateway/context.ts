// Turns a bearer token into an Actor, and a request into the context of one operation.
import type { IncomingMessage } from 'node:http';
import type { Actor } from '../actor.ts';
import type { Admission } from './limits/admission.ts';
import type { Caps } from './limits/caps.ts';
import type { Config } from '../config.ts';
import { Refusal } from '../errors.ts';
import type { Budget, ResultBytes } from '../graphql/budget.ts';
import type { Context } from '../graphql/builder.ts';
import { commit, type Store } from '../live/commit.ts';
import type { Feeds } from '../live/feed.ts';
import { authenticate, isUseStale, touchToken } from '../project/token.ts';

/** Parts that all operations of a gateway share. */
export type Gateway = Store & {
  readonly feeds: Feeds;
  readonly config: Config;
  readonly admission: Admission;
  readonly caps: Caps;
  readonly resultBytes: ResultBytes;
};

/** Returns the token of `Authorization: Bearer <token>`; null when the header has none. */
export function bearerOf(header: string | undefined): string | null {
  return /^Bearer +(\S+) *$/i.exec(header ?? '')?.[1] ?? null;
}

/**
 * Returns the token of a request; null without an `Authorization` header. A header without a bearer
 * token throws UNAUTHENTICATED: null would silently treat its sender as not signed in.
 */
export function tokenOf(request: IncomingMessage): string | null {
  const { authorization } = request.headers;
  const token = bearerOf(authorization);
  if (authorization !== undefined && token === null) {
    throw new Refusal('UNAUTHENTICATED', 'The Authorization header has no bearer token.', {
      hint: 'Send "Authorization: Bearer <token>".',
    });
  }
  return token;
}

/**
 * Looks up the actor of a token, within the limits of an operation. Returns null for no token;
 * throws UNAUTHENTICATED for one that is unknown, expired or revoked.
 */
export async function actorOf(gateway: Gateway, token: string | null): Promise<Actor | null> {
  if (token === null) return null;
  return gateway.admission.run(async () => {
    const { actor, lastUsedAt } = await authenticate(gateway.database.db, token);
    if (isUseStale(lastUsedAt)) await commit(gateway, (tx) => touchToken(tx, actor.tokenId));
    return actor;
  });
}

export function contextOf(
  gateway: Omit<Gateway, 'admission' | 'caps' | 'resultBytes'>,
  actor: Actor | null,
  idempotencyKey: string | null,
  budget: Budget,
): Context {
  return { ...gateway, actor, idempotencyKey, loaders: new Map(), budget };
}
