// Mutations of schedules in GraphQL: create, update, trigger and delete.
import { requireActor } from '../actor.ts';
import { builder } from '../graphql/builder.ts';
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
import type { Job } from '../job/job.ts';
import { JobRef } from '../job/schema.ts';
import { commit } from '../live/commit.ts';
import { JobSpecInput } from '../spec/input-schema.ts';
import { fromInput, shadowedExtras } from '../spec/input.ts';
import { createSchedule, deleteSchedule, triggerSchedule, updateSchedule } from './edit.ts';
import type { Schedule } from './schedule.ts';
import { OverlapPolicyEnum, ScheduleRef } from './schema.ts';

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
    const newSchedule = {
      spec: fromInput(input.spec),
      issues: shadowedExtras(input.spec),
      cron: input.cron,
      timezone: input.timezone ?? 'UTC',
      name: input.name ?? null,
      onOverlap: input.onOverlap ?? ('FORBID' as const),
      startingDeadlineSeconds: input.startingDeadlineSeconds ?? 3600,
      idempotencyKey: input.idempotencyKey ?? context.idempotencyKey,
    };
    return commit(context, (tx) => createSchedule(tx, actor, newSchedule));
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
  async resolve({ id, spec, ...settings }, context) {
    const actor = requireActor(context.actor);
    const present = Object.fromEntries(
      Object.entries(settings).filter(([, value]) => value !== null && value !== undefined),
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
