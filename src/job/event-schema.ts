// Events of jobs in GraphQL: `Job.events` in pages, `jobEvents` live. The file stands in `job/`,
// since `event/` may not import jobs. `loadActor` finds the cause of an event by the prefix of its
// id, e.g. a schedule, whose room stands below.
import type { Actor } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import { notFound } from '../errors.ts';
import {
  eventBeforeLast,
  eventBytes,
  eventRowBytes,
  type JobEvent,
  type JobEventType,
  jobEventTypes,
  listJobEvents,
  loadJobEvents,
  projectBeforeLast,
  readProjectEvents,
} from '../event/event.ts';
import { builder, type Context, load, loadExisting, viewerNeutral } from '../graphql/builder.ts';
import { ActorInterface, badInput, loadActor, NodeInterface, registerNode } from '../graphql/node.ts';
import { connectionType, type Page, pageArgs, readPageArgs, toPage } from '../graphql/page.ts';
import { type Batch, batchType, streamField, type StreamStart } from '../graphql/stream.ts';
import { decodePosition, positionFromText, positionToText, readHorizon } from '../live/changes.ts';
import { decodeNumber, encodeCursor } from '../live/cursor.ts';
import type { SharedStream } from '../live/feed.ts';
import { ProjectEventRef } from '../project/event-schema.ts';
import { getProject } from '../project/project.ts';
import { getJob, loadJobs, readJob } from './job.ts';
import { JobRef, JobStateEnum, requireFollowed } from './schema.ts';
import { isTerminal, type JobState } from './state.ts';

/**
 * Events of one batch. An alert holds up to 64 KiB of text, so a batch takes up to 6 MiB, which one
 * operation may hold.
 */
const maxBatch = 100;

const JobEventTypeEnum = builder.enumType('JobEventType', {
  description: 'Type of a job event.',
  values: {
    SUBMITTED: { description: 'The job was accepted.' },
    STATE_CHANGED: { description: '`state` or `stateReason` changed.' },
    ATTEMPT_STARTED: { description: 'An attempt started.' },
    ATTEMPT_FINISHED: { description: 'An attempt finished.' },
    CHECKPOINT: { description: 'The script reported a checkpoint.' },
    ALERT: { description: 'The script or a policy raised an alert, e.g. a loss became NaN.' },
    EDITED: { description: 'A person or a token changed tags, notes or priority.' },
  } satisfies Record<JobEventType, { description: string }>,
});

const JobEventRef = builder.objectRef<JobEvent>('JobEvent').implement({
  ...viewerNeutral,
  description: 'Something that happened to a job.',
  interfaces: [NodeInterface],
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Global id of the event.' }),
    type: t.expose('type', { type: JobEventTypeEnum, description: 'Type of the event.' }),
    time: t.expose('time', { type: 'DateTime', description: 'Timestamp of the event.' }),
    job: t.field({
      type: JobRef,
      description: 'The job, as it is now.',
      resolve: (event, _, context) => loadExisting(context, loadJobs, event.jobId),
    }),
    actor: t.field({
      type: ActorInterface,
      nullable: true,
      description: 'Who caused the event; null for the system.',
      resolve: (event, _, context) => loadActor(context, event.actorId),
    }),
    message: t.exposeString('message', { description: 'One sentence for people.' }),
    fromState: t.field({
      type: JobStateEnum,
      nullable: true,
      description: 'State before; null unless `STATE_CHANGED`.',
      resolve: (event) => event.fromState as JobState | null,
    }),
    toState: t.field({
      type: JobStateEnum,
      nullable: true,
      description: 'State after; null unless `STATE_CHANGED`.',
      resolve: (event) => event.toState as JobState | null,
    }),
    data: t.field({
      type: 'JSONObject',
      nullable: true,
      description: 'Details as the script or the system sent them.',
      resolve: (event) => event.data as Record<string, unknown> | null,
    }),
  }),
});

builder.objectField(ProjectEventRef, 'job', (t) =>
  t.field({
    type: JobRef,
    nullable: true,
    description: 'The job that it happened to, as it is now; null for an event of the project itself.',
    resolve: (event, _, context) => (event.jobId === null ? null : load(context, loadJobs, event.jobId)),
  }),
);

registerNode('evt', 'JobEvent', async (context, actor, id) => {
  const event = await load(context, loadJobEvents, id);
  return event && (await getJob(context.database.db, actor, event.jobId)) ? event : null;
});

const JobEventConnection = connectionType<JobEvent>('JobEvent', JobEventRef, {
  plural: 'events',
  noun: 'event',
  description: 'A page of job events.',
  edgeDescription: 'A job event and its cursor.',
  pageInfoDescription: 'Position of the page. `endCursor` is a valid `after` of `Subscription.jobEvents`.',
});

const streamName = (id: string) => `events:${id}`;

builder.objectField(JobRef, 'events', (t) =>
  t.field({
    type: JobEventConnection,
    description: 'Events of the job, oldest first.',
    args: {
      types: t.arg({ type: [JobEventTypeEnum], description: 'Only events of these types.' }),
      ...pageArgs(100),
    },
    async resolve(job, { types, ...args }, { database, budget }): Promise<Page<JobEvent>> {
      const request = readPageArgs(args, 100);
      const stream = streamName(job.id);
      const after = request.after === undefined ? 0 : decodeNumber(stream, request.after);
      const before = request.before === undefined ? undefined : decodeNumber(stream, request.before);
      const { event: head } = await readJob(database.db, job.id);
      const range = { after, before: Math.min(head + 1, before ?? Infinity) };
      const { limit, backward } = request;
      const options = { types: types ?? jobEventTypes, limit, backward, ...range };
      const events = await listJobEvents(database.db, job.id, options);
      await budget.takeRows(events.reduce((sum, event) => sum + eventBytes(event), 0));
      const page = toPage(events, request, (event) => encodeCursor(stream, [event.seq]));
      // The cursor of an empty page stands where the read ended, so that a subscription can go on
      // there.
      return {
        ...page,
        endCursor: page.edges.at(-1)?.cursor ?? encodeCursor(stream, [Math.max(after, range.before - 1)]),
      };
    },
  }),
);

type JobEventBatch = Batch<{ events: JobEvent[] }>;

const JobEventBatchRef = batchType<JobEventBatch>('JobEventBatch', {
  description: 'Events, in order.',
  fields: (t) => ({ events: t.expose('events', { type: [JobEventRef], description: 'The events.' }) }),
  endCursor: 'Cursor after the last event: the `after` to reconnect with.',
  done: 'Indicates the job is terminal and every event was delivered; never true for a project.',
});

type Start = StreamStart & { types: readonly JobEventType[] };

streamField('jobEvents', {
  description: 'Events of a job or of a whole project.',
  batch: JobEventBatchRef,
  args: builder.args((t) => ({
    jobId: t.id({ description: 'Only of this job.' }),
    projectId: t.id({ description: 'Only of this project. Exactly one of `jobId` and `projectId` is required.' }),
    types: t.field({ type: [JobEventTypeEnum], description: 'Only events of these types.' }),
  })),
  after: 'Cursor to resume after.',
  last: { max: 10_000, description: 'Without `after`: this many events before the end.' },
  follow({ jobId, projectId, types, after, last }, context, actor) {
    const start = { types: types ?? jobEventTypes, after, last };
    if (typeof jobId === 'string' && typeof projectId !== 'string') return followJob(context, jobId, start);
    if (typeof projectId === 'string' && typeof jobId !== 'string') {
      return followProject(context, actor, projectId, start);
    }
    throw badInput('Pass exactly one of jobId and projectId.', ['jobId']);
  },
});

async function followJob(context: Context, jobId: string, { types, after, last }: Start) {
  const { db } = context.database;
  await requireFollowed(context, jobId);
  const stream = streamName(jobId);
  const position = after === null ? 0 : decodeNumber(stream, after);
  const beforeLast = (last: number) =>
    context.feeds.readFirst(`${stream}:${last}:${types.join()}`, () => eventBeforeLast(db, jobId, { types, last }));
  const shared: SharedStream<JobEventBatch> = {
    key: `events:${JSON.stringify(types)}`,
    start: last === null ? position : await beforeLast(last),
    async read(after, to) {
      // The job is read before its events: once its state is terminal, all its events lie at or
      // below `head`.
      const { job, event: head } = await readJob(db, jobId);
      const end = Math.min(head, to ?? head);
      const range = { after, before: end + 1 };
      const rows = await listJobEvents(db, jobId, { types, limit: maxBatch, backward: false, ...range });
      const events = rows.slice(0, maxBatch);
      const position = rows.length > maxBatch ? (events.at(-1)?.seq ?? after) : Math.max(after, end);
      const [ended, more] = [isTerminal(job.state), position < head];
      const done = ended && !more;
      const value = { events, endCursor: encodeCursor(stream, [position]), caughtUp: !more, done };
      return { value, position, seen: { event: head, end: Number(ended) }, more, done, ...sizeOf(events) };
    },
  };
  return { channel: channels.job(jobId), shared };
}

async function followProject(context: Context, actor: Actor, projectId: string, { types, after, last }: Start) {
  const { db } = context.database;
  if (!(await getProject(db, actor, projectId))) throw notFound('Project', projectId, ['projectId']);
  const stream = streamName(projectId);
  const horizon = await context.feeds.readFirst('horizon', () => readHorizon(db));
  const position = after === null ? ([0, '', 0] as const) : decodePosition(stream, after, horizon);
  const beforeLast = (last: number) =>
    context.feeds.readFirst(`${stream}:${last}:${types.join()}:${horizon}`, () =>
      projectBeforeLast(db, projectId, { types, last, horizon }),
    );
  const shared: SharedStream<JobEventBatch, string> = {
    key: `events:${JSON.stringify(types)}`,
    start: positionToText(last === null ? position : await beforeLast(last)),
    async read(from, to) {
      const horizon = await readHorizon(db);
      const [after, until] = [positionFromText(from), to === null ? null : positionFromText(to)];
      const reading = await readProjectEvents(db, projectId, { after, until, horizon, limit: maxBatch });
      const { position, more, pending } = reading;
      const events = reading.events.filter(({ type }) => types.includes(type));
      const value = { events, endCursor: encodeCursor(stream, position), caughtUp: !more, done: false };
      const seen = { changed: horizon - 1 };
      return { value, position: positionToText(position), seen, more, pending, done: false, ...sizeOf(events) };
    },
  };
  return { channel: channels.project(projectId), shared };
}

function sizeOf({ length }: JobEvent[]) {
  return { empty: length === 0, sizeBytes: (length + 1) * eventRowBytes };
}
