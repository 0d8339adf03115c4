// `submitJob` and its dry run `previewJob` in GraphQL.
import { requireActor, requireScope } from '../actor.ts';
import { Refusal } from '../errors.ts';
import { builder } from '../graphql/builder.ts';
import {
  addMutation,
  IdempotencyConflictError,
  InvalidStateError,
  NotFoundError,
  PermissionError,
  PolicyViolationError,
  toUserError,
  UserError,
  ValidationError,
} from '../graphql/mutation.ts';
import { listOf } from '../graphql/page.ts';
import { JobRef, resolvedValues } from '../job/schema.ts';
import { JobSpecInput } from '../spec/input-schema.ts';
import { fromInput, shadowedExtras } from '../spec/input.ts';
import type { ResolvedValue } from '../spec/resolve.ts';
import { ResolvedValueRef } from '../spec/schema.ts';
import { type JobPlan, planJob, refusedPlan } from './plan.ts';
import { keyOf, submit, type Submitted } from './submit.ts';

export const JobPreviewRef = builder.objectRef<JobPlan>('JobPreview').implement({
  description: 'Result of a dry run: what `submitJob` with the same input would do.',
  fields: (t) => ({
    resolved: t.field({
      type: [ResolvedValueRef],
      description: 'Every effective value that can be told, with its source.',
      extensions: { listSize: resolvedValues },
      resolve: (plan) => listOf(plan.resolved) as ResolvedValue[],
    }),
    command: t.stringList({
      nullable: true,
      description: 'Command that would run; null when `errors` is not empty.',
      resolve: (plan) => (plan.ready ? plan.effective.command : null),
    }),
    errors: t.field({
      type: [UserError],
      description: 'Errors `submitJob` would return; empty when it would succeed.',
      resolve: (plan) => (plan.ready ? [] : [toUserError(plan.refusal)]),
    }),
    defaultsVersion: t.string({
      nullable: true,
      description: 'Defaults version it was resolved with.',
      resolve: (plan) => plan.defaults?.version,
    }),
    policyRevision: t.int({
      nullable: true,
      description: 'Policy revision it was resolved with and checked against.',
      resolve: (plan) => plan.policy?.revision,
    }),
    specHash: t.exposeString('specHash', {
      nullable: true,
      description:
        'Hash that `submitJob` would record. Pass it as `expectedSpecHash` to get what was previewed or nothing.',
    }),
  }),
});

builder.queryField('previewJob', (t) =>
  t.field({
    type: JobPreviewRef,
    description: 'Dry run of `submitJob`.',
    args: { spec: t.arg({ type: JobSpecInput, required: true, description: 'The job.' }) },
    async resolve(_, { spec }, { actor, database }): Promise<JobPlan> {
      const caller = requireActor(actor);
      const refusal = scopeRefusal(() => requireScope(caller, spec.projectId, 'WRITE', ['spec', 'projectId']));
      if (refusal) return refusedPlan(refusal); // before any work on the spec
      const submission = { spec: fromInput(spec), issues: shadowedExtras(spec), at: ['spec'] };
      return planJob(database.db, caller, submission);
    },
  }),
);

function scopeRefusal(check: () => void): Refusal | null {
  try {
    check();
    return null;
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
}

const SubmitJobInput = builder.inputType('SubmitJobInput', {
  description: 'Input of `submitJob`.',
  fields: (t) => ({
    spec: t.field({ type: JobSpecInput, required: true, description: 'The job.' }),
    idempotencyKey: t.string({
      description: `Key that makes retries safe, 1–255 characters, scoped to the project: the same key with the same spec returns the first
job, with a different spec an \`IdempotencyConflictError\` that lists the paths that differ. A key is kept as long as its
job lives and 30 days more, and a refused submission does not use it up. Over HTTP the \`Idempotency-Key\` header does the same.`,
    }),
    expectedSpecHash: t.string({
      description: 'Hash a preview gave: refused with `InvalidStateError` when it would resolve otherwise now.',
    }),
  }),
});

export const SubmitJobPayloadRef = builder.objectRef<Submitted>('SubmitJobPayload').implement({
  description: 'Success of `submitJob`.',
  fields: (t) => ({
    job: t.expose('job', { type: JobRef, description: 'The job, as it is now.' }),
    replayed: t.exposeBoolean('replayed', {
      description: 'Indicates an earlier submission with the same idempotency key was returned.',
    }),
  }),
});

addMutation('submitJob', {
  description: 'Submits a job.',
  inputDescription: 'The submission.',
  input: SubmitJobInput,
  payload: SubmitJobPayloadRef,
  errors: [
    InvalidStateError,
    ValidationError,
    NotFoundError,
    PermissionError,
    PolicyViolationError,
    IdempotencyConflictError,
  ],
  async resolve(input, context) {
    const actor = requireActor(context.actor);
    const at = ['input', 'spec'];
    requireScope(actor, input.spec.projectId, 'WRITE', [...at, 'projectId']);
    const spec = fromInput(input.spec);
    const { expectedSpecHash = null } = input;
    const submission = { spec, issues: shadowedExtras(input.spec), expectedSpecHash, at };
    return submit(context, actor, submission, keyOf('submitJob', input.idempotencyKey ?? context.idempotencyKey, spec));
  },
});
