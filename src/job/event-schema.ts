// How people read what happened to jobs: `Job.events` in pages, `jobEvents` live. It stands in the room of jobs, since
// events stand above jobs and cannot know them; who caused an event may stand below, and is found by its id's prefix.
import { type Actor, requireActor } from '../actor.ts';
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
  type ProjectPosition,
  readProjectEvents,
} from '../event/event.ts';
import { asOfNow, builder, type Context, load, loadExisting, viewerNeutral } from '../graphql/builder.ts';
import { ActorInterface, badInput, loadActor, NodeInterface, registerNode } from '../graphql/node.ts';
import { connectionType, type Page, pageArgs, readPageArgs, toPage } from '../graphql/page.ts';
import { orderedText, readHorizon } from '../live/changes.ts';
import { cursorInvalid, decodeCursor, decodeNumber, encodeCursor, isCount } from '../live/cursor.ts';
import type { SharedStream } from '../live/feed.ts';
import { ProjectEventRef } from '../project/event-schema.ts';
import { getProject } from '../project/project.ts';
import { getJob, loadJobs, readJob } from './job.ts';
import { JobRef, JobStateEnum, requireFollowed } from './schema.ts';
import { isTerminal, type JobState } from './state.ts';

/** An alert holds up to 64 KiB of text: so many are 6 MiB, which one operation may hold. */
const maxBatch = 100;
const maxLast = 10_000;

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

const streamOf = (id: string) => `events:${id}`;

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
      const stream = streamOf(job.id);
      const after = request.after === undefined ? 0 : decodeNumber(stream, request.after);
      const before = request.before === undefined ? undefined : decodeNumber(stream, request.before);
      const { event: head } = await readJob(database.db, job.id);
      const range = { after, before: Math.min(head + 1, before ?? Infinity) };
      const { limit, backward } = request;
      const options = { types: types ?? jobEventTypes, limit, backward, ...range };
      const events = await listJobEvents(database.db, job.id, options);
      await budget.takeRows(events.reduce((sum, event) => sum + eventBytes(event), 0));
      const page = toPage(events, request, (event) => encodeCursor(stream, [event.seq]));
      // An empty page ends where it looked, so that a subscription can go on from there.
      return {
        ...page,
        endCursor: page.edges.at(-1)?.cursor ?? encodeCursor(stream, [Math.max(after, range.before - 1)]),
      };
    },
  }),
);

type JobEventBatch = { events: JobEvent[]; endCursor: string; caughtUp: boolean; done: boolean };

const JobEventBatchRef = builder.objectRef<JobEventBatch>('JobEventBatch').implement({
  ...viewerNeutral,
  description: 'Events, in order.',
  fields: (t) => ({
    events: t.expose('events', { type: [JobEventRef], description: 'The events.' }),
    endCursor: t.exposeString('endCursor', {
      description: 'Cursor after the last event: the `after` to reconnect with.',
    }),
    caughtUp: t.exposeBoolean('caughtUp', {
      description: 'Indicates the backlog is delivered and what follows is live.',
    }),
    done: t.exposeBoolean('done', {
      description: 'Indicates the job is terminal and every event was delivered; never true for a project.',
    }),
  }),
});

type Start = { types: readonly JobEventType[]; after: string | null; last: number | null };

builder.subscriptionField('jobEvents', (t) =>
  t.field({
    ...viewerNeutral,
    type: JobEventBatchRef,
    description: 'Events of a job or of a whole project.',
    args: {
      jobId: t.arg.id({ description: 'Only of this job.' }),
      projectId: t.arg.id({
        description: 'Only of this project. Exactly one of `jobId` and `projectId` is required.',
      }),
      types: t.arg({ type: [JobEventTypeEnum], description: 'Only events of these types.' }),
      after: t.arg.string({ description: 'Cursor to resume after.' }),
      last: t.arg.int({ description: 'Without `after`: this many events before the end.' }),
    },
    subscribe(_, { jobId, projectId, types, after, last }, context) {
      const actor = requireActor(context.actor);
      const start = { types: types ?? jobEventTypes, after: after ?? null, last: last ?? null };
      if (start.after !== null && start.last !== null) throw badInput('Pass after or last, not both.', ['last']);
      if (start.last !== null && (start.last < 0 || start.last > maxLast)) {
        throw badInput(`last is ${start.last}; it goes from 0 to ${maxLast}.`, ['last']);
      }
      const [ofJob, ofProject] = [jobId ?? null, projectId ?? null];
      if (ofJob !== null && ofProject === null) return followJob(context, ofJob, start);
      if (ofProject !== null && ofJob === null) return followProject(context, actor, ofProject, start);
      throw badInput('Pass exactly one of jobId and projectId.', ['jobId']);
    },
    resolve: asOfNow,
  }),
);

async function followJob(context: Context, jobId: string, { types, after, last }: Start) {
  const { db } = context.database;
  await requireFollowed(context, jobId);
  const stream = streamOf(jobId);
  const place = after === null ? 0 : decodeNumber(stream, after);
  const beforeLast = (last: number) =>
    context.feeds.readFirst(`${stream}:${last}:${types.join()}`, () => eventBeforeLast(db, jobId, { types, last }));
  const shared: SharedStream<JobEventBatch> = {
    key: `events:${JSON.stringify(types)}`,
    start: last === null ? place : await beforeLast(last),
    async read(after, to) {
      // The job before its events: an end that is seen here has all of its events below the head.
      const { job, event: head } = await readJob(db, jobId);
      const end = Math.min(head, to ?? head);
      const range = { after, before: end + 1 };
      const rows = await listJobEvents(db, jobId, { types, limit: maxBatch, backward: false, ...range });
      const events = rows.slice(0, maxBatch);
      const position = rows.length > maxBatch ? (events.at(-1)?.seq ?? after) : Math.max(after, end);
      const [ended, more] = [isTerminal(job.state), position < head];
      const done = ended && !more;
      const value = { events, endCursor: encodeCursor(stream, [position]), caughtUp: !more, done };
      const seen = { event: head, end: Number(ended) };
      return {
        value,
        empty: events.length === 0,
        position,
        seen,
        more,
        done,
        sizeBytes: (events.length + 1) * eventRowBytes,
      };
    },
  };
  return context.feeds.follow<JobEventBatch>({ channel: channels.job(jobId), shared });
}

async function followProject(context: Context, actor: Actor, projectId: string, { types, after, last }: Start) {
  const { db } = context.database;
  if (!(await getProject(db, actor, projectId))) throw notFound('Project', projectId, ['projectId']);
  const stream = streamOf(projectId);
  const horizon = await context.feeds.readFirst('horizon', () => readHorizon(db));
  const place = after === null ? projectStart : projectPosition(stream, after, horizon);
  const beforeLast = (last: number) =>
    context.feeds.readFirst(`${stream}:${last}:${types.join()}:${horizon}`, () =>
      projectBeforeLast(db, projectId, { types, last, horizon }),
    );
  const wanted = new Set(types);
  const shared: SharedStream<JobEventBatch, string> = {
    key: `events:${JSON.stringify(types)}`,
    start: toText(last === null ? place : await beforeLast(last)),
    async read(from, to) {
      const horizon = await readHorizon(db);
      const until = to === null ? null : fromText(to);
      const reading = await readProjectEvents(db, projectId, {
        after: fromText(from),
        until,
        horizon,
        limit: maxBatch,
      });
      const { position, more, pending } = reading;
      const events = reading.events.filter((event) => wanted.has(event.type));
      return {
        value: { events, endCursor: encodeCursor(stream, position), caughtUp: !more, done: false },
        empty: events.length === 0,
        position: toText(position),
        seen: { changed: horizon - 1 },
        more,
        pending,
        done: false,
        sizeBytes: (events.length + 1) * eventRowBytes,
      };
    },
  };
  return context.feeds.follow<JobEventBatch>({ channel: channels.project(projectId), shared });
}

const projectStart: ProjectPosition = [0, '', 0];

/** A place as a text in the same order. */
function toText([changed, jobId, seq]: ProjectPosition): string {
  return [orderedText(changed), jobId, orderedText(seq)].join(' ');
}

function fromText(text: string): ProjectPosition {
  const [changed, jobId = '', seq] = text.split(' ');
  return [Number(changed), jobId, Number(seq)];
}

/** Place that a cursor names. One beyond the horizon is of another database, where nothing would ever come after it. */
function projectPosition(stream: string, cursor: string, horizon: number): ProjectPosition {
  const [changed, jobId, seq, ...rest] = decodeCursor(stream, cursor);
  if (!isCount(changed) || typeof jobId !== 'string' || !isCount(seq) || rest.length > 0) throw cursorInvalid();
  if (changed > horizon) throw cursorInvalid();
  return [changed, jobId, seq];
}
