// GraphQL: runners and their GPUs. `attempt/schema.ts` adds the jobs that they execute.
import { requireActor } from '../actor.ts';
import { builder, load } from '../graphql/builder.ts';
import { ActorInterface, NodeInterface, registerActor, registerNode } from '../graphql/node.ts';
import { addTotalCount, connectionType, type Page, pageArgs, readPageArgs, toPage } from '../graphql/page.ts';
import { decodeText, encodeCursor } from '../live/cursor.ts';
import { loadVisibleProjects, ProjectRef } from '../project/schema.ts';
import type { Gpu } from '../protocol/control.ts';
import { countRunners, listRunners, loadRunners, placesOf, type Runner, runnerState } from './runner.ts';

export type GpuOf = Gpu & { runnerId: string };

export const RunnerRef = builder.objectRef<Runner>('Runner');
export const GpuRef = builder.objectRef<GpuOf>('Gpu');

registerNode('run', 'Runner', async (context, actor, id) =>
  actor.scopes.has('READ') ? load(context, loadRunners, id) : null,
);

registerActor('run', loadRunners);

const RunnerStateEnum = builder.enumType('RunnerState', {
  description: 'State of a runner.',
  values: {
    ONLINE: { description: 'Connected, accepting jobs.' },
    DRAINING: { description: 'Finishing its jobs, accepting no new ones.' },
    OFFLINE: { description: 'No heartbeat within the lease time.' },
  },
});

RunnerRef.implement({
  description: 'A machine that runs jobs.',
  interfaces: [NodeInterface, ActorInterface],
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Global id of the runner.' }),
    name: t.exposeString('name', { description: 'Name of the runner; its host name when none was given.' }),
    state: t.field({
      type: RunnerStateEnum,
      description: 'State of the runner.',
      resolve: (runner) => runnerState(runner, new Date()),
    }),
    gpus: t.field({
      type: [GpuRef],
      description: 'GPUs of the runner.',
      resolve: (runner) => runner.gpus.map((gpu) => ({ ...gpu, runnerId: runner.id })),
    }),
    places: t.int({
      description: 'Jobs that the runner takes at once, with and without GPUs.',
      resolve: (runner) => placesOf(runner),
    }),
    projects: t.field({
      type: [ProjectRef],
      nullable: true,
      description: 'Projects whose jobs the runner takes, of those that the caller can see; null for all projects.',
      resolve: ({ projectIds }, _, context) =>
        projectIds === null || !context.actor ? null : loadVisibleProjects(context, projectIds),
    }),
    labels: t.exposeStringList('labels', { description: 'Labels of the runner.' }),
    version: t.exposeString('version', { description: 'Version of the runner software.' }),
    lastSeenAt: t.expose('lastSeenAt', { type: 'DateTime', description: 'Timestamp of the last heartbeat.' }),
  }),
});

GpuRef.implement({
  description: 'A GPU of a runner.',
  fields: (t) => ({
    index: t.exposeInt('index', { description: 'Index of the GPU on its machine.' }),
    model: t.exposeString('model', {
      description: 'Model of the GPU, e.g. `NVIDIA H100 80GB HBM3`; `virtual` for a slot without one.',
    }),
    memoryBytes: t.expose('memoryBytes', { type: 'SafeInt', description: 'Memory of the GPU in bytes.' }),
  }),
});

const RunnerConnection = connectionType('Runner', RunnerRef, {
  plural: 'runners',
  noun: 'runner',
  description: 'A page of runners.',
  edgeDescription: 'A runner and its cursor.',
});
addTotalCount(RunnerConnection, 'runners');

const runnerStream = 'runners';

builder.queryField('runners', (t) =>
  t.field({
    type: RunnerConnection,
    description: 'Runners the caller can see.',
    args: {
      states: t.arg({ type: [RunnerStateEnum], description: 'Only runners in these states.' }),
      ...pageArgs(100),
    },
    async resolve(_, args, { actor, database }): Promise<Page<Runner>> {
      const request = readPageArgs(args, 100);
      if (!requireActor(actor).scopes.has('READ')) return { edges: [], hasNextPage: false, hasPreviousPage: false };
      const states = args.states ?? null;
      const rows = await listRunners(database.db, states, {
        ...request,
        after: request.after === undefined ? undefined : [decodeText(runnerStream, request.after)],
        before: request.before === undefined ? undefined : [decodeText(runnerStream, request.before)],
      });
      const page = toPage(rows, request, (row) => encodeCursor(runnerStream, [row.id]));
      return { ...page, countAll: () => countRunners(database.db, states) };
    },
  }),
);
