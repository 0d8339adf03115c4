// How people ask for schedules, and for what became of their due times.
import { requireActor } from '../actor.ts';
import { builder, type Context, load, loadExisting } from '../graphql/builder.ts';
import {
  addMutation,
  AlreadyExistsError,
  deletion,
  IdempotencyConflictError,
  InvalidStateError,
  NotFoundError,
  PermissionError,
  PolicyViolationError,
  ValidationError,
} from '../graphql/mutation.ts';
import { ActorInterface, badInput, NodeInterface, registerActor, registerNode } from '../graphql/node.ts';
import { addTotalCount, connectionType, type Page, pageArgs, readPageArgs, toPage } from '../graphql/page.ts';
import { type Job, loadJobs } from '../job/job.ts';
import { JobConnection, jobPage } from '../job/list-schema.ts';
import { JobRef } from '../job/schema.ts';
import { commit } from '../live/commit.ts';
import { cursorInvalid, decodeText, encodeCursor } from '../live/cursor.ts';
import { loadProjects } from '../project/project.ts';
import { ProjectRef } from '../project/schema.ts';
import { JobSpecInput } from '../spec/input-schema.ts';
import { fromInput, shadowedExtras } from '../spec/input.ts';
import { calendarIssues, describeCron, dueTimes, openCalendar } from './calendar.ts';
import { listRuns, type ScheduleRun, skipCodes, type SkipReason } from './run.ts';
import {
  countSchedules,
  createSchedule,
  deleteSchedule,
  getSchedule,
  listSchedules,
  loadLastJobs,
  loadSchedules,
  type Schedule,
  triggerSchedule,
  updateSchedule,
} from './schedule.ts';
import type { OverlapPolicy } from './table.ts';

const maxTimes = 50;

const OverlapPolicyEnum = builder.enumType('OverlapPolicy', {
  description:
    'What a schedule does when it fires while its previous job still runs. The names are those of Kubernetes CronJob.',
  values: {
    ALLOW: { description: 'Start another job.' },
    FORBID: { description: 'Skip this run (default).' },
    REPLACE: { description: 'Cancel the running job and start a new one.' },
  } satisfies Record<OverlapPolicy, { description: string }>,
});

const ScheduleRunOutcome = builder.enumType('ScheduleRunOutcome', {
  description: 'What became of a due time.',
  values: { STARTED: { description: 'A job was started.' }, SKIPPED: { description: 'No job was started.' } },
});

const ScheduleSkipCode = builder.enumType('ScheduleSkipCode', {
  description: 'Why a due time was skipped. New values may be added.',
  values: {
    MISSED: { description: 'No gateway could start it within `startingDeadlineSeconds`.' },
    PREVIOUS_RUNNING: { description: 'A job of the schedule had not ended, and it forbids overlaps.' },
    PAUSED: { description: 'The schedule was paused.' },
    CHANGED: { description: 'Its cron expression or time zone was changed before it was started.' },
    POLICY_VIOLATION: { description: 'The policy of the project forbade the job.' },
    INVALID_STATE: { description: 'The project took no job, e.g. since it was archived.' },
    INVALID_INPUT: { description: 'The template could not be submitted any more.' },
  } satisfies Record<(typeof skipCodes)[number], { description: string }>,
});

const ScheduleSkipReason = builder.objectRef<SkipReason>('ScheduleSkipReason').implement({
  description: 'Why a due time was skipped.',
  fields: (t) => ({
    code: t.expose('code', { type: ScheduleSkipCode, description: 'Machine-readable reason.' }),
    message: t.exposeString('message', { description: 'One sentence for people.' }),
  }),
});

const ScheduleRunRef = builder.objectRef<ScheduleRun>('ScheduleRun').implement({
  description:
    'What became of a due time of a schedule. Due times in a row that were skipped for one reason are one of these.',
  fields: (t) => ({
    dueAt: t.expose('dueAt', {
      type: 'DateTime',
      description: 'The due time; of several that were skipped the first.',
    }),
    lastDueAt: t.expose('lastDueAt', {
      type: 'DateTime',
      description: 'The last due time this stands for; `dueAt` when it is one.',
    }),
    decidedAt: t.expose('decidedAt', { type: 'DateTime', description: 'Timestamp of when it was started or skipped.' }),
    outcome: t.field({
      type: ScheduleRunOutcome,
      description: 'What became of it.',
      resolve: ({ jobId }) => (jobId === null ? 'SKIPPED' : 'STARTED'),
    }),
    reason: t.field({
      type: ScheduleSkipReason,
      nullable: true,
      description: 'Why it was skipped; null when a job was started.',
      resolve: ({ reasonCode, reasonMessage }) =>
        reasonCode === null ? null : { code: reasonCode as SkipReason['code'], message: reasonMessage ?? '' },
    }),
    job: t.field({
      type: JobRef,
      nullable: true,
      description: 'Job that was started; null when it was skipped.',
      resolve: ({ jobId }, _, context) => (jobId === null ? null : load(context, loadJobs, jobId)),
    }),
  }),
});

const ScheduleRunConnection = connectionType('ScheduleRun', ScheduleRunRef, {
  plural: 'due times',
  noun: 'due time',
  description: 'A page of due times.',
  edgeDescription: 'A due time and its cursor.',
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

type PageArgs = Parameters<typeof readPageArgs>[0];

async function runPage(context: Context, { id }: Schedule, args: PageArgs): Promise<Page<ScheduleRun>> {
  const request = readPageArgs(args, 100);
  const stream = `runs:${id}`;
  const position = (cursor: string | undefined) => {
    if (cursor === undefined) return undefined;
    const text = decodeText(stream, cursor);
    if (Number.isNaN(Date.parse(text)) || !/^2\d{3}-/.test(text)) throw cursorInvalid();
    return [text];
  };
  const [after, before] = [position(request.after), position(request.before)];
  const { limit, backward } = request;
  const page = { limit, backward, ...(after ? { after } : {}), ...(before ? { before } : {}) };
  const rows = await listRuns(context.database.db, id, page);
  return toPage(rows, request, (row) => encodeCursor(stream, [row.dueAt.toISOString()]));
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

const keyField = { description: 'Key that makes retries safe.' };
const replayedField = { description: 'Indicates an earlier mutation with the same idempotency key was returned.' };
const deadlineText = 'Seconds after its due time in which a missed run is still started';

addMutation('createSchedule', {
  description: 'Creates a schedule that submits a job at every due time, exactly once.',
  inputDescription: 'The schedule.',
  input: builder.inputType('CreateScheduleInput', {
    description: 'Input of `createSchedule`.',
    fields: (t) => ({
      spec: t.field({
        type: JobSpecInput,
        required: true,
        description: 'Template of the jobs. In a spec file the keys below stand under `schedule:`.',
      }),
      cron: t.string({
        required: true,
        description: 'Cron expression with five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`.',
      }),
      timezone: t.string({ defaultValue: 'UTC', description: 'IANA time zone.' }),
      name: t.string({ description: 'Name, unique in the project; a generated one when null.' }),
      onOverlap: t.field({
        type: OverlapPolicyEnum,
        defaultValue: 'FORBID',
        description: 'What happens when the previous job still runs.',
      }),
      startingDeadlineSeconds: t.int({ defaultValue: 3600, description: `${deadlineText}, 10–604800.` }),
      idempotencyKey: t.string(keyField),
    }),
  }),
  payload: builder.objectRef<{ schedule: Schedule; replayed: boolean }>('CreateSchedulePayload').implement({
    description: 'Success of `createSchedule`.',
    fields: (t) => ({
      schedule: t.expose('schedule', { type: ScheduleRef, description: 'The schedule.' }),
      replayed: t.exposeBoolean('replayed', replayedField),
    }),
  }),
  errors: [
    ValidationError,
    NotFoundError,
    PermissionError,
    PolicyViolationError,
    AlreadyExistsError,
    IdempotencyConflictError,
    InvalidStateError,
  ],
  async resolve(input, context) {
    const actor = requireActor(context.actor);
    const wanted = {
      spec: fromInput(input.spec),
      issues: shadowedExtras(input.spec),
      cron: input.cron,
      timezone: input.timezone ?? 'UTC',
      name: input.name ?? null,
      onOverlap: input.onOverlap ?? ('FORBID' as const),
      startingDeadlineSeconds: input.startingDeadlineSeconds ?? 3600,
      idempotencyKey: input.idempotencyKey ?? context.idempotencyKey,
    };
    return commit(context, (tx) => createSchedule(tx, actor, wanted));
  },
});

addMutation('updateSchedule', {
  description: 'Changes a schedule. Running jobs are not affected.',
  inputDescription: 'What to change.',
  input: builder.inputType('UpdateScheduleInput', {
    description: 'Input of `updateSchedule`. Unset fields stay as they are.',
    fields: (t) => ({
      id: t.id({ required: true, description: 'Id of the schedule.' }),
      cron: t.string({ description: 'Cron expression.' }),
      timezone: t.string({ description: 'IANA time zone.' }),
      name: t.string({ description: 'Name.' }),
      onOverlap: t.field({ type: OverlapPolicyEnum, description: 'What happens when the previous job still runs.' }),
      startingDeadlineSeconds: t.int({ description: `${deadlineText}.` }),
      spec: t.field({ type: JobSpecInput, description: "New template; its `projectId` must be the schedule's." }),
      paused: t.boolean({
        description: 'Pauses the schedule, or resumes it. Runs missed meanwhile are not made up for.',
      }),
    }),
  }),
  payload: builder.objectRef<{ schedule: Schedule }>('SchedulePayload').implement({
    description: 'Success of a mutation of one schedule.',
    fields: (t) => ({
      schedule: t.expose('schedule', { type: ScheduleRef, description: 'The schedule after the mutation.' }),
    }),
  }),
  result: 'ScheduleResult',
  errors: [
    ValidationError,
    NotFoundError,
    PermissionError,
    InvalidStateError,
    PolicyViolationError,
    AlreadyExistsError,
  ],
  async resolve({ id, spec, ...given }, context) {
    const actor = requireActor(context.actor);
    const present = Object.fromEntries(
      Object.entries(given).filter(([, value]) => value !== null && value !== undefined),
    );
    const template = spec ? { spec: fromInput(spec), issues: shadowedExtras(spec) } : {};
    return { schedule: await commit(context, (tx) => updateSchedule(tx, actor, { id, ...present, ...template })) };
  },
});

addMutation('triggerSchedule', {
  description:
    "Submits a job from a schedule's template now: also while it is paused, and whatever it does about overlaps.",
  inputDescription: 'Which schedule.',
  input: builder.inputType('TriggerScheduleInput', {
    description: 'Input of `triggerSchedule`.',
    fields: (t) => ({
      id: t.id({ required: true, description: 'Schedule.' }),
      idempotencyKey: t.string(keyField),
    }),
  }),
  payload: builder.objectRef<{ schedule: Schedule; job: Job; replayed: boolean }>('TriggerSchedulePayload').implement({
    description: 'Success of `triggerSchedule`.',
    fields: (t) => ({
      schedule: t.expose('schedule', { type: ScheduleRef, description: 'The schedule.' }),
      job: t.expose('job', { type: JobRef, description: 'The job it submitted.' }),
      replayed: t.exposeBoolean('replayed', replayedField),
    }),
  }),
  errors: [
    NotFoundError,
    PermissionError,
    PolicyViolationError,
    ValidationError,
    InvalidStateError,
    IdempotencyConflictError,
  ],
  async resolve({ id, idempotencyKey }, context) {
    const key = idempotencyKey ?? context.idempotencyKey;
    return triggerSchedule(context, requireActor(context.actor), { id, idempotencyKey: key });
  },
});

addMutation('deleteSchedule', {
  ...deletion,
  description: 'Deletes a schedule. Its jobs stay.',
  inputDescription: 'Which schedule.',
  input: builder.inputType('ScheduleIdInput', {
    description: 'Input of mutations that need nothing but a schedule.',
    fields: (t) => ({ id: t.id({ required: true, description: 'Id of the schedule.' }) }),
  }),
  async resolve({ id }, context) {
    const actor = requireActor(context.actor);
    await commit(context, (tx) => deleteSchedule(tx, actor, id));
    return { deletedId: id };
  },
});
