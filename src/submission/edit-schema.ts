// `updateJob` and `retryJob` in GraphQL.
import { requireActor } from '../actor.ts';
import { builder, load } from '../graphql/builder.ts';
import {
  addMutation,
  IdempotencyConflictError,
  InvalidStateError,
  NotFoundError,
  PermissionError,
  PolicyViolationError,
  ValidationError,
} from '../graphql/mutation.ts';
import { type Job, loadJobs } from '../job/job.ts';
import { JobRef } from '../job/schema.ts';
import { commit } from '../live/commit.ts';
import { HyperparamsInput, ResourcesInput } from '../spec/input-schema.ts';
import { fromInput, shadowedExtras } from '../spec/input.ts';
import { updateJob } from './edit.ts';
import { type Retry, retryJob } from './retry.ts';

builder.objectField(JobRef, 'retriedFrom', (t) =>
  t.field({
    type: JobRef,
    nullable: true,
    description: 'Job this one was retried from; null for a first submission.',
    resolve: (job, _, context) => (job.retriedFrom ? load(context, loadJobs, job.retriedFrom) : null),
  }),
);

export const JobPayloadRef = builder.objectRef<{ job: Job }>('JobPayload').implement({
  description: 'Success of a mutation of one job.',
  fields: (t) => ({ job: t.expose('job', { type: JobRef, description: 'The job after the mutation.' }) }),
});

addMutation('updateJob', {
  description: 'Changes the name, tags, notes or priority of a job.',
  inputDescription: 'What to change.',
  input: builder.inputType('UpdateJobInput', {
    description: 'Input of `updateJob`. Unset fields stay as they are.',
    fields: (t) => ({
      id: t.id({ required: true, description: 'Id of the job.' }),
      name: t.string({ description: 'Name.' }),
      tags: t.stringList({ description: 'Labels; replaces all.' }),
      notes: t.string({ description: 'Notes in Markdown.' }),
      priority: t.int({ description: 'Priority; only while `QUEUED`.' }),
    }),
  }),
  payload: JobPayloadRef,
  errors: [ValidationError, NotFoundError, PermissionError, InvalidStateError],
  async resolve({ id, name, tags, notes, priority }, context) {
    const actor = requireActor(context.actor);
    const edit = {
      id,
      name: name ?? undefined,
      tags: tags ?? undefined,
      notes: notes ?? undefined,
      priority: priority ?? undefined,
    };
    return { job: await commit(context, (tx) => updateJob(tx, actor, edit)) };
  },
});

addMutation('retryJob', {
  description: 'Submits a finished job again as a new job, with the values it was resolved to.',
  inputDescription: 'What to retry.',
  input: builder.inputType('RetryJobInput', {
    description: 'Input of `retryJob`.',
    fields: (t) => ({
      id: t.id({ required: true, description: 'Id of the job to submit again.' }),
      hyperparams: t.field({ type: HyperparamsInput, description: 'Hyperparameters to change.' }),
      resources: t.field({ type: ResourcesInput, description: 'Resources to change.' }),
      idempotencyKey: t.string({ description: 'Key that makes retries safe.' }),
    }),
  }),
  payload: builder.objectRef<{ job: Job; replayed: boolean }>('RetryJobPayload').implement({
    description: 'Success of `retryJob`.',
    fields: (t) => ({
      job: t.expose('job', { type: JobRef, description: 'The new job.' }),
      replayed: t.exposeBoolean('replayed', {
        description: 'Indicates an earlier mutation with the same idempotency key was returned.',
      }),
    }),
  }),
  errors: [
    ValidationError,
    NotFoundError,
    PermissionError,
    InvalidStateError,
    PolicyViolationError,
    IdempotencyConflictError,
  ],
  async resolve(input, context) {
    const actor = requireActor(context.actor);
    const { id, hyperparams, resources } = input;
    return retryJob(context, actor, {
      id,
      changes: fromInput({ hyperparams, resources }) as Retry['changes'],
      issues: shadowedExtras({ hyperparams }),
      idempotencyKey: input.idempotencyKey ?? context.idempotencyKey,
    });
  },
});
