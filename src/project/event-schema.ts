// Events of projects in GraphQL: `Project.events` and `Viewer.platformEvents`.
// `job/event-schema.ts` adds the job of an event.
import { eventBytes, type EventType, eventTypes } from '../event/event.ts';
import {
  type Event,
  historyPosition,
  type HistoryPosition,
  listEvents,
  loadEvents,
  visibleTypes,
} from '../event/history.ts';
import { builder, type Context, load } from '../graphql/builder.ts';
import { ActorInterface, loadActor, NodeInterface, registerNode } from '../graphql/node.ts';
import { connectionType, type Page, type PageRequest, pageArgs, readPageArgs, toPage } from '../graphql/page.ts';
import { cursorInvalid, decodeCursor, encodeCursor, isCount } from '../live/cursor.ts';
import { ProjectRef, ViewerRef } from './schema.ts';

const maxPage = 100;

const ProjectEventTypeEnum = builder.enumType('ProjectEventType', {
  description: 'Type of a project event. New values may be added.',
  values: {
    SUBMITTED: { description: 'A job was accepted.' },
    STATE_CHANGED: { description: '`state` or `stateReason` of a job changed.' },
    ATTEMPT_STARTED: { description: 'An attempt of a job started.' },
    ATTEMPT_FINISHED: { description: 'An attempt of a job finished.' },
    CHECKPOINT: { description: 'The script of a job reported a checkpoint.' },
    ALERT: { description: 'The script of a job or a policy raised an alert.' },
    EDITED: { description: 'A job was edited: its name, tags, notes or priority.' },
    PROJECT_CREATED: { description: 'The project was created.' },
    PROJECT_UPDATED: { description: 'The project was changed, archived or brought back.' },
    TOKEN_CREATED: { description: 'An access token was created. Shown to administrators.' },
    TOKEN_REVOKED: { description: 'An access token was revoked. Shown to administrators.' },
    POLICY_SET: { description: 'The policy was set.' },
    SCHEDULE_CREATED: { description: 'A schedule was created.' },
    SCHEDULE_UPDATED: { description: 'A schedule was changed, paused or resumed.' },
    SCHEDULE_DELETED: { description: 'A schedule was deleted.' },
    SECRET_SET: { description: 'A secret was created or got a new value. Shown to those who may submit jobs.' },
    SECRET_DELETED: { description: 'A secret was deleted. Shown to those who may submit jobs.' },
    DEFAULTS_PUBLISHED: { description: 'A version of the defaults was published.' },
    DEFAULTS_CHOSEN: { description: 'Another version of the defaults became the current one.' },
  } satisfies Record<EventType, { description: string }>,
});

export const ProjectEventRef = builder.objectRef<Event>('ProjectEvent').implement({
  description: 'An entry in the history of a project or of the platform: who did what.',
  interfaces: [NodeInterface],
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Global id of the entry.' }),
    type: t.expose('type', { type: ProjectEventTypeEnum, description: 'Type of the event.' }),
    time: t.expose('time', { type: 'DateTime', description: 'Timestamp of the event.' }),
    actor: t.field({
      type: ActorInterface,
      nullable: true,
      description: 'Who caused the event; null for the system.',
      resolve: (event, _, context) => loadActor(context, event.actorId),
    }),
    message: t.exposeString('message', { description: 'One sentence for people.' }),
    data: t.field({
      type: 'JSONObject',
      nullable: true,
      description: 'Details of the event.',
      resolve: (event) => event.data as Record<string, unknown> | null,
    }),
  }),
});

registerNode('pev', 'ProjectEvent', async (context, actor, id) => {
  const event = await load(context, loadEvents, id);
  if (!event || !visibleTypes(actor, event.projectId).includes(event.type)) return null;
  return event;
});

const ProjectEventConnection = connectionType<Event>('ProjectEvent', ProjectEventRef, {
  plural: 'events',
  noun: 'event',
  description: 'A page of project events.',
  edgeDescription: 'A project event and its cursor.',
});

const eventArgs = builder.args((t) => ({
  types: t.field({ type: [ProjectEventTypeEnum], description: 'Only events of these types.' }),
}));

builder.objectField(ProjectRef, 'events', (t) =>
  t.field({
    type: ProjectEventConnection,
    description:
      'Who did what in the project, its jobs among it, oldest first. Events of tokens are shown to administrators, those of secrets to callers who may submit jobs.',
    args: { ...eventArgs, ...pageArgs(maxPage) },
    resolve: (project, { types, ...args }, context) =>
      eventPage(context, project.id, types ?? eventTypes, readPageArgs(args, maxPage)),
  }),
);

builder.objectField(ViewerRef, 'platformEvents', (t) =>
  t.field({
    type: ProjectEventConnection,
    nullable: true,
    description:
      'Who did what to the whole platform, oldest first: tokens for all projects, defaults. Null unless the caller administers it.',
    args: { ...eventArgs, ...pageArgs(maxPage) },
    resolve: (actor, { types, ...args }, context) =>
      visibleTypes(actor, null).length === 0
        ? null
        : eventPage(context, null, types ?? eventTypes, readPageArgs(args, maxPage)),
  }),
);

async function eventPage(
  context: Context,
  projectId: string | null,
  types: readonly EventType[],
  request: PageRequest,
): Promise<Page<Event>> {
  const { actor, database, budget } = context;
  const stream = `history:${projectId ?? '*'}`;
  const visible = new Set(actor ? visibleTypes(actor, projectId) : []);
  const rows = await listEvents(database.db, projectId, {
    ...request,
    types: types.filter((type) => visible.has(type)),
    after: request.after === undefined ? undefined : readPosition(stream, request.after),
    before: request.before === undefined ? undefined : readPosition(stream, request.before),
  });
  await budget.takeRows(rows.reduce((sum, row) => sum + eventBytes(row), 0));
  return toPage(rows, request, (row) => encodeCursor(stream, historyPosition(row)));
}

function readPosition(stream: string, cursor: string): HistoryPosition {
  const [changed, jobId, seq, id, ...rest] = decodeCursor(stream, cursor);
  if (!isCount(changed) || typeof jobId !== 'string' || !isCount(seq) || typeof id !== 'string' || rest.length > 0) {
    throw cursorInvalid();
  }
  return [changed, jobId, seq, id];
}
