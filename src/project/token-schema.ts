// Access tokens in GraphQL: queries and mutations.
import { type Actor, requireActor, type TokenScope } from '../actor.ts';
import { builder, type Context, load, loadExisting } from '../graphql/builder.ts';
import {
  addMutation,
  deletion,
  IdempotencyConflictError,
  InvalidStateError,
  NotFoundError,
  PermissionError,
  TokenScopeEnum,
  ValidationError,
} from '../graphql/mutation.ts';
import { ActorInterface, NodeInterface, registerActor, registerNode } from '../graphql/node.ts';
import { commit } from '../live/commit.ts';
import { listTokens, loadProjects } from './project.ts';
import { revokeToken } from './revocation.ts';
import { loadVisibleProjects, ProjectRef, ViewerRef } from './schema.ts';
import { type AccessToken, createToken, loadTokens } from './token.ts';

export const AccessTokenRef = builder.objectRef<AccessToken>('AccessToken');

registerNode('tok', 'AccessToken', async (context, actor, id) => {
  const token = await load(context, loadTokens, id);
  if (!token || token.revokedAt) return null;
  return maySee(actor, token) ? token : null;
});

registerActor('tok', loadTokens);

/** Whether the actor administers the tokens of a project, or of the platform for null. */
function mayManage(actor: Actor, projectId: string | null): boolean {
  if (!actor.scopes.has('ADMIN')) return false;
  return actor.projectId === null || actor.projectId === projectId;
}

function maySee(actor: Actor | null, token: AccessToken): boolean {
  return actor !== null && (token.id === actor.tokenId || mayManage(actor, token.projectId));
}

/** Makes a resolver that returns null for a token that the caller may not see. */
function ifVisible<Value>(read: (token: AccessToken) => Value) {
  return (token: AccessToken, _: unknown, { actor }: Context) => (maySee(actor, token) ? read(token) : null);
}

AccessTokenRef.implement({
  description:
    'An access token. Of one that the caller may not see, e.g. as the actor of an event, only `id` and `name` show: all else is null.',
  interfaces: [NodeInterface, ActorInterface],
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Global id of the token.' }),
    name: t.exposeString('name', { description: 'Name of the token.' }),
    prefix: t.string({
      nullable: true,
      description: 'First characters of the token text, to recognise it by.',
      resolve: ifVisible((token) => token.prefix),
    }),
    scopes: t.field({
      type: [TokenScopeEnum],
      nullable: true,
      description: 'Scopes of the token.',
      resolve: ifVisible((token) => token.scopes as TokenScope[]),
    }),
    createdAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when the token was created.',
      resolve: ifVisible((token) => token.createdAt),
    }),
    expiresAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when the token stops working; null for never.',
      resolve: ifVisible((token) => token.expiresAt),
    }),
    lastUsedAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when the token was last used; null for never.',
      resolve: ifVisible((token) => token.lastUsedAt),
    }),
    project: t.field({
      type: ProjectRef,
      nullable: true,
      description: 'Project of the token; null for a token of the whole platform, or of several projects.',
      resolve: (token, _, context) =>
        token.projectId !== null && maySee(context.actor, token) ? load(context, loadProjects, token.projectId) : null,
    }),
    projects: t.field({
      type: [ProjectRef],
      nullable: true,
      description:
        'Projects of the token, of those that the caller can see; null for a token of the whole platform. A token of scope `RUNNER` claims jobs of these projects only.',
      resolve(token, _, context) {
        const ids = token.projectId === null ? token.runnerProjectIds : [token.projectId];
        return ids && maySee(context.actor, token) ? loadVisibleProjects(context, ids) : null;
      },
    }),
  }),
});

builder.objectField(ProjectRef, 'tokens', (t) =>
  t.field({
    type: [AccessTokenRef],
    nullable: true,
    description: 'Tokens of the project. The token text is shown once, at creation.',
    resolve: (project, _, { actor, database }) =>
      actor && mayManage(actor, project.id) ? listTokens(database.db, project.id) : null,
  }),
);

builder.objectFields(ViewerRef, (t) => ({
  token: t.field({
    type: AccessTokenRef,
    description: 'Token in use.',
    resolve: (actor, _, context) => loadExisting(context, loadTokens, actor.tokenId),
  }),
  platformTokens: t.field({
    type: [AccessTokenRef],
    nullable: true,
    description: "Tokens of the whole platform, runners' among them; null unless the caller administers it.",
    resolve: (actor, _, { database }) => (mayManage(actor, null) ? listTokens(database.db, null) : null),
  }),
}));

addMutation('createToken', {
  description: 'Creates an access token.',
  inputDescription: 'The token.',
  input: builder.inputType('CreateTokenInput', {
    description: 'Input of `createToken`.',
    fields: (t) => ({
      idempotencyKey: t.string({ description: 'Key that makes retries safe.' }),
      projectId: t.id({
        description:
          "Project of the token; null for a token of the whole platform, such as a runner's, which only a platform administrator can create.",
      }),
      projectIds: t.idList({
        description:
          'Projects whose jobs a token of scope `RUNNER` may claim, at most 100; null for all. Beside `projectId` it is refused.',
      }),
      name: t.string({ required: true, description: 'Name of the token.' }),
      scopes: t.field({ type: [TokenScopeEnum], required: true, description: 'Scopes of the token.' }),
      expiresAt: t.field({
        type: 'DateTime',
        description: 'Timestamp of when the token stops working; null for never.',
      }),
    }),
  }),
  payload: builder
    .objectRef<{ token: AccessToken; secret: string | null; replayed: boolean }>('CreateTokenPayload')
    .implement({
      description: 'Success of `createToken`.',
      fields: (t) => ({
        token: t.expose('token', { type: AccessTokenRef, description: 'The token.' }),
        secret: t.exposeString('secret', {
          nullable: true,
          description:
            'Text of the token, shown this once; null when the mutation was replayed: revoke the token and create another.',
        }),
        replayed: t.exposeBoolean('replayed', {
          description: 'Indicates an earlier mutation with the same idempotency key was returned.',
        }),
      }),
    }),
  errors: [ValidationError, NotFoundError, PermissionError, InvalidStateError, IdempotencyConflictError],
  async resolve(input, context) {
    const actor = requireActor(context.actor);
    const token = {
      projectId: input.projectId ?? null,
      projectIds: input.projectIds ?? null,
      name: input.name,
      scopes: input.scopes,
      expiresAt: input.expiresAt ?? null,
      idempotencyKey: input.idempotencyKey ?? context.idempotencyKey,
    };
    return commit(context, (tx) => createToken(tx, actor, token));
  },
});

addMutation('revokeToken', {
  ...deletion,
  description: 'Revokes an access token at once, also for open subscriptions.',
  inputDescription: 'Which token.',
  input: builder.inputType('RevokeTokenInput', {
    description: 'Input of `revokeToken`.',
    fields: (t) => ({ id: t.id({ required: true, description: 'Id of the token.' }) }),
  }),
  async resolve({ id }, context) {
    const actor = requireActor(context.actor);
    await commit(context, (tx) => revokeToken(tx, actor, id));
    return { deletedId: id };
  },
});
