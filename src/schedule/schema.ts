// Schedules in GraphQL.
import { requireActor } from '../actor.ts';
import { builder, load, loadExisting } from '../graphql/builder.ts';
import { DeletePayloadRef } from '../graphql/mutation.ts';
import { ActorInterface, badInput, NodeInterface, registerActor, registerNode } from '../graphql/node.ts';
import { addTotalCount, connectionType, pageArgs, readPageArgs, toPage } from '../graphql/page.ts';
import { idPrefix } from '../id.ts';
import { JobConnection, jobPage } from '../job/list-schema.ts';
import { JobRef } from '../job/schema.ts';
import { decodeText, encodeCursor } from '../live/cursor.ts';
import { loadProjects } from '../project/project.ts';
import { ProjectRef } from '../project/schema.ts';
import { calendarIssues, describeCron, dueTimes, openCalendar } from './calendar.ts';
import { runPage, ScheduleRunConnection } from './run-schema.ts';
import {
  countSchedules,
  getSchedule,
  listSchedules,
  listSchedulesOf,
  loadLastJobs,
  loadSchedules,
  type Schedule,
} from './schedule.ts';
import type { OverlapPolicy } from './table.ts';

const maxTimes = 50;

export const OverlapPolicyEnum = builder.enumType('OverlapPolicy', {
  description:
    'What a schedule does when it fires while its previous job still runs. The names are those of Kubernetes CronJob.',
  values: {
    ALLOW: { description: 'Start another job.' },
    FORBID: { description: 'Skip this run (default).' },
    REPLACE: { description: 'Cancel the running job and start a new one.' },
  } satisfies Record<OverlapPolicy, { description: string }>,
});

export const ScheduleRef = builder.objectRef<Schedule>('Schedule');
registerNode('sch', 'Schedule', ({ database }, actor, id) => getSchedule(database.db, actor, id));
registerActor('sch', loadSchedules);

ScheduleRef.implement({
  description: 'A schedule that submits jobs.',
  interfaces: [NodeInterface, ActorInterface],
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Global id of the schedule.' }),
    name: t.exposeString('name', { description: 'Name of the schedule, unique in its project.' }),
    project: t.field({
      type: ProjectRef,
      description: 'Project of the schedule.',
      resolve: (schedule, _, context) => loadExisting(context, loadProjects, schedule.projectId),
    }),
    cron: t.exposeString('cron', {
      description: 'Cron expression with five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`.',
    }),
    description: t.string({
      description: 'The expression in words, e.g. `Every hour`.',
      resolve: ({ cron }) => describeCron(cron),
    }),
    timezone: t.exposeString('timezone', { description: 'IANA time zone the expression is read in.' }),
    onOverlap: t.expose('onOverlap', {
      type: OverlapPolicyEnum,
      description: 'What happens when the previous job still runs.',
    }),
    startingDeadlineSeconds: t.exposeInt('startingDeadlineSeconds', {
      description: 'Seconds after its due time in which a missed run is still started; older ones are skipped.',
    }),
    spec: t.expose('spec', {
      type: 'JSONObject',
      description: 'Template of the jobs, in the snake_case of the job spec file.',
    }),
    defaultsVersion: t.exposeString('defaultsVersion', {
      description:
        'Defaults version its jobs are resolved with: the one that was current when it was created, unless the template names one.',
    }),
    pausedAt: t.expose('pausedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when the schedule was paused; null while it is active.',
    }),
    nextRuns: t.field({
      type: ['DateTime'],
      description: 'Next due timestamps; empty while it is paused.',
      args: { first: t.arg.int({ defaultValue: 3, description: `Number of timestamps, 1–${maxTimes}.` }) },
      resolve: (schedule, { first }) => nextRuns(schedule, readCount(first ?? 3)),
    }),
    lastJob: t.field({
      type: JobRef,
      nullable: true,
      description: 'Newest job of the schedule.',
      resolve: ({ id }, _, context) => load(context, loadLastJobs, id),
    }),
    jobs: t.field({
      type: JobConnection,
      description: 'Jobs of the schedule, newest first.',
      args: pageArgs(100),
      resolve: ({ id, projectId }, args, context) =>
        jobPage(context, args, { scheduleId: id, projectIds: [projectId] }),
    }),
    runs: t.field({
      type: ScheduleRunConnection,
      description: 'What became of its due times, newest first.',
      args: pageArgs(100),
      resolve: (schedule, args, context) => runPage(context, schedule, args),
    }),
    createdAt: t.expose('createdAt', {
      type: 'DateTime',
      description: 'Timestamp of when the schedule was created.',
    }),
    updatedAt: t.expose('updatedAt', { type: 'DateTime', description: 'Timestamp of the last change.' }),
  }),
});

function nextRuns(schedule: Schedule, count: number): Date[] {
  const { pausedAt, nextDueAt } = schedule;
  if (pausedAt || !nextDueAt) return [];
  return [nextDueAt, ...dueTimes(openCalendar(schedule), nextDueAt, count - 1)];
}

function readCount(first: number): number {
  if (first >= 1 && first <= maxTimes) return first;
  throw badInput(`first is ${first}; it goes from 1 to ${maxTimes}.`, ['first']);
}

const ScheduleConnection = connectionType('Schedule', ScheduleRef, {
  plural: 'schedules',
  noun: 'schedule',
  description: 'A page of schedules.',
  edgeDescription: 'A schedule and its cursor.',
});

addTotalCount(ScheduleConnection, 'schedules');

builder.objectField(ProjectRef, 'schedules', (t) =>
  t.field({
    type: ScheduleConnection,
    description: 'Schedules of the project, by name.',
    args: pageArgs(100),
    async resolve({ id }, args, { database: { db } }) {
      const request = readPageArgs(args, 100);
      const stream = `schedules:${id}`;
      const { limit, backward, after, before } = request;
      const rows = await listSchedules(db, id, {
        limit,
        backward,
        ...(after === undefined ? {} : { after: [decodeText(stream, after)] }),
        ...(before === undefined ? {} : { before: [decodeText(stream, before)] }),
      });
      const page = toPage(rows, request, (row) => encodeCursor(stream, [row.name]));
      return { ...page, countAll: () => countSchedules(db, id) };
    },
  }),
);

builder.objectField(JobRef, 'schedule', (t) =>
  t.field({
    type: ScheduleRef,
    nullable: true,
    description: 'Schedule that submitted the job; null for a manual submission, and when the schedule was deleted.',
    resolve: ({ scheduleId }, _, context) => (scheduleId === null ? null : load(context, loadSchedules, scheduleId)),
  }),
);

builder.objectField(JobRef, 'dueAt', (t) =>
  t.expose('dueAt', {
    type: 'DateTime',
    nullable: true,
    description: 'Due time of its schedule that the job was started for; null for any other job.',
  }),
);

type CronPreview = { cron: string; timezone: string; first: number };
const CronPreviewRef = builder.objectRef<CronPreview>('CronPreview').implement({
  description: 'A cron expression in words, and when it is due.',
  fields: (t) => ({
    cron: t.exposeString('cron', { description: 'The expression.' }),
    timezone: t.exposeString('timezone', { description: 'IANA time zone it is read in.' }),
    description: t.string({
      description: 'The expression in words, e.g. `At 02:00, Monday through Friday`.',
      resolve: ({ cron }) => describeCron(cron),
    }),
    nextRuns: t.field({
      type: ['DateTime'],
      description: 'Next due timestamps from now on.',
      resolve: (preview) => dueTimes(openCalendar(preview), new Date(), preview.first),
    }),
  }),
});

builder.queryField('previewCron', (t) =>
  t.field({
    type: CronPreviewRef,
    description: `A cron expression in words with its next due times; \`BAD_USER_INPUT\` says what is wrong with it. When clocks change,
an expression that names its minutes and hours is due once for each time it names: one that is left out at the first
moment after the gap, one that comes twice the first time. One with \`*\` or a step in them goes on with the time that passes.`,
    args: {
      cron: t.arg.string({
        required: true,
        description: 'Cron expression with five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`.',
      }),
      timezone: t.arg.string({ defaultValue: 'UTC', description: 'IANA time zone.' }),
      first: t.arg.int({ defaultValue: 5, description: `Number of timestamps, 1–${maxTimes}.` }),
    },
    resolve(_, args, { actor }) {
      requireActor(actor);
      const preview = { cron: args.cron, timezone: args.timezone ?? 'UTC', first: readCount(args.first ?? 5) };
      const [issue] = calendarIssues(preview, [], new Date());
      if (issue) throw badInput(issue.message, issue.path, { hint: issue.hint });
      return preview;
    },
  }),
);

builder.objectField(DeletePayloadRef, 'schedules', (t) =>
  t.field({
    type: [ScheduleRef],
    description:
      'Schedules that the revoked token created, at most 100: they go on submitting jobs until they are paused or deleted. Empty for what is no token.',
    resolve: ({ deletedId }, _, { actor, database }) =>
      actor && idPrefix(deletedId) === 'tok' ? listSchedulesOf(database.db, actor, deletedId) : [],
  }),
);
