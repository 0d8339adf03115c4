// Projects in GraphQL: queries and mutations.
import { type Actor, canSee, requireActor, requireScope } from '../actor.ts';
import { decodeText, encodeCursor } from '../live/cursor.ts';
import { commit } from '../live/commit.ts';
import { builder, type Context, loadExisting } from '../graphql/builder.ts';
import {
  addMutation,
  AlreadyExistsError,
  InvalidStateError,
  NotFoundError,
  PermissionError,
  TokenScopeEnum,
  ValidationError,
} from '../graphql/mutation.ts';
import { NodeInterface, registerNode } from '../graphql/node.ts';
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
  loadProjects,
  type Project,
  updateProject,
} from './project.ts';

export const ProjectRef = builder.objectRef<Project>('Project');

registerNode('p', 'Project', ({ database }, actor, id) => getProject(database.db, actor, id));
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
    viewerScopes: t.field({
      type: [TokenScopeEnum],
      description: 'What the caller may do in the project.',
      resolve: (project, _, { actor }) => (actor && canSee(actor, project.id) ? [...actor.scopes].sort() : []),
    }),
  }),
});

/** Returns those of the projects that the caller can see. */
export function loadVisibleProjects(context: Context, ids: readonly string[]): Promise<Project[]> {
  const { actor } = context;
  const visible = ids.filter((id) => actor && canSee(actor, id));
  return Promise.all(visible.map((id) => loadExisting(context, loadProjects, id)));
}

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
    projects: t.field({
      type: ProjectConnection,
      description: 'Projects the caller can see.',
      args: {
        ...pageArgs(100),
      },
      resolve: (actor, args, context) => projectPage(context, actor, readPageArgs(args, 100)),
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

/**
 * Returns the caller. Throws UNAUTHENTICATED without one, and the error of `requireScope` unless it
 * may read the project.
 */
export function requireRead(context: Context, projectId: string): Actor {
  const actor = requireActor(context.actor);
  requireScope(actor, projectId, 'READ');
  return actor;
}
