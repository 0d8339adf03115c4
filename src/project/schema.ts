// How people ask for projects and tokens.
import { canSee, requireActor, requireScope } from '../actor.ts';
import { decodeText, encodeCursor } from '../live/cursor.ts';
import { commit } from '../live/commit.ts';
import { builder, type Context, load, loadExisting } from '../graphql/builder.ts';
import {
  addMutation,
  AlreadyExistsError,
  deletion,
  IdempotencyConflictError,
  InvalidStateError,
  NotFoundError,
  PermissionError,
  TokenScopeEnum,
  ValidationError,
} from '../graphql/mutation.ts';
import { ActorInterface, NodeInterface, registerActor, registerNode } from '../graphql/node.ts';
import {
  addTotalCount,
  connectionType,
  type Page,
  type PageRequest,
  pageArgs,
  readPageArgs,
  toPage,
} from '../graphql/page.ts';
import {
  countProjects,
  createProject,
  getProject,
  listProjects,
  listTokens,
  loadProjects,
  type Project,
  updateProject,
} from './project.ts';
import { revokeToken } from './revocation.ts';
import { type AccessToken, createToken, loadTokens } from './token.ts';
import type { Actor, TokenScope } from '../actor.ts';

export const ProjectRef = builder.objectRef<Project>('Project');
export const AccessTokenRef = builder.objectRef<AccessToken>('AccessToken');

registerNode('p', 'Project', ({ database }, actor, id) => getProject(database.db, actor, id));
registerNode('tok', 'AccessToken', async (context, actor, id) => {
  const token = await load(context, loadTokens, id);
  if (!token || token.revokedAt) return null;
  return token.id === actor.tokenId || mayManage(actor, token.projectId) ? token : null;
});

registerActor('tok', loadTokens);

/** Tokens are seen by the administrators of their project, or of the platform. */
function mayManage(actor: Actor, projectId: string | null): boolean {
  if (!actor.scopes.has('ADMIN')) return false;
  return actor.projectId === null || actor.projectId === projectId;
}

ProjectRef.implement({
  description: 'A project: the unit of access, policy and secrets.',
  interfaces: [NodeInterface],
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Project key chosen at creation, e.g. `p-demo`. It is the global id.' }),
    name: t.exposeString('name', { description: 'Display name of the project.' }),
    command: t.exposeStringList('command', {
      nullable: true,
      description: 'Command that runs when a job gives none, as an argument vector; null when every job must give one.',
    }),
    createdAt: t.expose('createdAt', {
      type: 'DateTime',
      description: 'Timestamp of when the project was created.',
    }),
    archivedAt: t.expose('archivedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when the project was archived; null while it is active.',
    }),
    tokens: t.field({
      type: [AccessTokenRef],
      nullable: true,
      description: 'Tokens of the project. The token text is shown once, at creation.',
      resolve: (project, _, { actor, database }) =>
        actor && mayManage(actor, project.id) ? listTokens(database.db, project.id) : null,
    }),
    viewerScopes: t.field({
      type: [TokenScopeEnum],
      description: 'What the caller may do in the project.',
      resolve: (project, _, { actor }) => (actor && canSee(actor, project.id) ? [...actor.scopes].sort() : []),
    }),
  }),
});

AccessTokenRef.implement({
  description: 'An access token.',
  interfaces: [NodeInterface, ActorInterface],
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Global id of the token.' }),
    name: t.exposeString('name', { description: 'Name of the token.' }),
    prefix: t.exposeString('prefix', { description: 'First characters of the token text, to recognise it by.' }),
    scopes: t.field({
      type: [TokenScopeEnum],
      description: 'Scopes of the token.',
      resolve: (token) => token.scopes as TokenScope[],
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'Timestamp of when the token was created.' }),
    expiresAt: t.expose('expiresAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when the token stops working; null for never.',
    }),
    lastUsedAt: t.expose('lastUsedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when the token was last used; null for never.',
    }),
    project: t.field({
      type: ProjectRef,
      nullable: true,
      description: 'Project of the token; null for a token of the whole platform.',
      resolve: (token, _, context) => (token.projectId ? load(context, loadProjects, token.projectId) : null),
    }),
  }),
});

const ProjectConnection = connectionType('Project', ProjectRef, {
  plural: 'projects',
  noun: 'project',
  description: 'A page of projects.',
  edgeDescription: 'A project and its cursor.',
});
addTotalCount(ProjectConnection, 'projects');

export const ViewerRef = builder.objectRef<Actor>('Viewer').implement({
  description: 'The caller.',
  fields: (t) => ({
    token: t.field({
      type: AccessTokenRef,
      description: 'Token in use.',
      resolve: (actor, _, context) => loadExisting(context, loadTokens, actor.tokenId),
    }),
    projects: t.field({
      type: ProjectConnection,
      description: 'Projects the caller can see.',
      args: {
        ...pageArgs(100),
      },
      resolve: (actor, args, context) => projectPage(context, actor, readPageArgs(args, 100)),
    }),
    platformTokens: t.field({
      type: [AccessTokenRef],
      nullable: true,
      description: "Tokens of the whole platform, runners' among them; null unless the caller administers it.",
      resolve: (actor, _, { database }) => (mayManage(actor, null) ? listTokens(database.db, null) : null),
    }),
  }),
});

const projectStream = 'projects';

async function projectPage(context: Context, actor: Actor, request: PageRequest): Promise<Page<Project>> {
  const { db } = context.database;
  const rows = await listProjects(db, actor, {
    ...request,
    after: request.after === undefined ? undefined : [decodeText(projectStream, request.after)],
    before: request.before === undefined ? undefined : [decodeText(projectStream, request.before)],
  });
  const page = toPage(rows, request, (row) => encodeCursor(projectStream, [row.id]));
  return { ...page, countAll: () => countProjects(db, actor) };
}

builder.queryFields((t) => ({
  viewer: t.field({
    type: ViewerRef,
    nullable: true,
    description: 'The caller; null when not signed in.',
    resolve: (_, __, { actor }) => actor,
  }),
  project: t.field({
    type: ProjectRef,
    nullable: true,
    description: 'Project with this id; null when it does not exist or the caller may not see it.',
    args: { id: t.arg.id({ required: true, description: 'Id of the project, e.g. `p-demo`.' }) },
    resolve: (_, { id }, { actor, database }) => getProject(database.db, requireActor(actor), id),
  }),
}));

const ProjectPayload = builder.objectRef<{ project: Project }>('ProjectPayload').implement({
  description: 'Success of a mutation of one project.',
  fields: (t) => ({
    project: t.expose('project', { type: ProjectRef, description: 'The project after the mutation.' }),
  }),
});

addMutation('createProject', {
  description: 'Creates a project.',
  inputDescription: 'The project.',
  input: builder.inputType('CreateProjectInput', {
    description: 'Input of `createProject`.',
    fields: (t) => ({
      id: t.id({ required: true, description: 'Key of the project, `p-` and lower-case letters, digits and hyphens.' }),
      name: t.string({ description: 'Display name; the key when null.' }),
      command: t.stringList({ description: 'Command that runs when a job gives none.' }),
    }),
  }),
  payload: ProjectPayload,
  errors: [ValidationError, PermissionError, AlreadyExistsError],
  async resolve(input, context) {
    const actor = requireActor(context.actor);
    return { project: await commit(context, (tx) => createProject(tx, actor, input)) };
  },
});

addMutation('updateProject', {
  description: 'Changes a project.',
  inputDescription: 'What to change.',
  input: builder.inputType('UpdateProjectInput', {
    description: 'Input of `updateProject`. Unset fields stay as they are.',
    fields: (t) => ({
      id: t.id({ required: true, description: 'Id of the project.' }),
      name: t.string({ description: 'Display name.' }),
      command: t.stringList({ description: 'Command that runs when a job gives none; `null` removes it.' }),
      archived: t.boolean({
        description: 'Archives the project, read-only and with its schedules stopped, or brings it back.',
      }),
    }),
  }),
  payload: ProjectPayload,
  result: 'ProjectResult',
  errors: [ValidationError, NotFoundError, PermissionError, InvalidStateError],
  async resolve(input, context) {
    const actor = requireActor(context.actor);
    const { id, name, command, archived } = input;
    const change = { id, name: name ?? undefined, command, archived: archived ?? undefined };
    return { project: await commit(context, (tx) => updateProject(tx, actor, change)) };
  },
});

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

/** Throws unless the caller is signed in and may read the project. */
export function requireRead(context: Context, projectId: string): Actor {
  const actor = requireActor(context.actor);
  requireScope(actor, projectId, 'READ');
  return actor;
}
