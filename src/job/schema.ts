// How people ask for jobs. What an attempt, the log or the metrics know of a job is added where they live.
import { canSee, requireActor, requireScope } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import { DefaultsRef } from '../defaults/schema.ts';
import { getDefaults } from '../defaults/defaults.ts';
import { notFound, Refusal } from '../errors.ts';
import type { Budget } from '../graphql/budget.ts';
import { asOfNow, builder, type Context, load, loadExisting, viewerNeutral } from '../graphql/builder.ts';
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
import { ActorInterface, badInput, loadActor, NodeInterface, registerNode } from '../graphql/node.ts';
import { addTotalCount, connectionType, listOf, type Page, pageArgs, readPageArgs, toPage } from '../graphql/page.ts';
import { cursorInvalid, decodeCursor, encodeCursor } from '../live/cursor.ts';
import { loadPolicies, policyId } from '../policy/policy.ts';
import { PolicyRef } from '../policy/schema.ts';
import { ProjectRef } from '../project/schema.ts';
import { loadProjects } from '../project/project.ts';
import { fromInput, shadowedExtras } from '../spec/input.ts';
import { JobSpecInput } from '../spec/input-schema.ts';
import { AugmentationStepRef, EnvVarRef, HyperparamsRef, ResolvedValueRef, ResourcesRef } from '../spec/schema.ts';
import type { ResolvedValue } from '../spec/resolve.ts';
import type { Warning } from '../spec/spec.ts';
import { bytesOfJob, bytesOfJobs, listJobsInSlices } from './bytes.ts';
import {
  countJobs,
  findJob,
  getJob,
  getJobByNumber,
  isJobPosition,
  type Job,
  type JobFilter,
  type JobOrderField,
  jobPosition,
  type JobPlan,
  type JobReading,
  planJob,
  refusedPlan,
  readJob,
} from './job.ts';
import { submit } from './submit.ts';
import { isTerminal } from './state.ts';
import type { Progress } from './table.ts';

export const JobStateEnum = builder.enumType('JobState', {
  description: 'Lifecycle state of a job. `stateReason` says why.',
  values: {
    QUEUED: { description: 'Accepted, waiting for a runner with enough free GPUs.' },
    STARTING: { description: 'Claimed by a runner that is preparing the workspace.' },
    RUNNING: { description: 'The training command is running.' },
    CANCELLING: { description: 'A stop was requested; the process is in its grace period.' },
    SUCCEEDED: { description: 'Finished with exit code 0, or stopped early on purpose. Terminal.' },
    FAILED: { description: 'Finished unsuccessfully with no retries left. Terminal.' },
    CANCELLED: { description: 'Stopped on request. Terminal.' },
    TIMED_OUT: { description: 'Exceeded `timeoutSeconds`, or a limit of its wait or its start. Terminal.' },
  },
});

/** Values that a job is weighed with: what it is given by default, and some more. */
const resolvedValues = 50;

export const JobRef = builder.objectRef<Job>('Job');

registerNode('job', 'Job', ({ database }, actor, id) => getJob(database.db, actor, id));

const JobProgress = builder.objectRef<Progress>('JobProgress').implement({
  ...viewerNeutral,
  description: 'Progress of a running job.',
  fields: (t) => ({
    step: t.expose('step', { type: 'SafeInt', nullable: true, description: 'Last reported step.' }),
    totalSteps: t.expose('totalSteps', {
      type: 'SafeInt',
      nullable: true,
      description: 'Total number of steps; null when unknown.',
    }),
    epoch: t.exposeFloat('epoch', { nullable: true, description: 'Last reported epoch, fractional.' }),
    totalEpochs: t.exposeFloat('totalEpochs', {
      nullable: true,
      description: 'Total number of epochs; null when unknown.',
    }),
    fraction: t.float({
      nullable: true,
      description: 'Share done, 0…1; null when the total is unknown.',
      resolve: fractionOf,
    }),
    stepsPerSecond: t.float({
      nullable: true,
      description: 'Steps per second, averaged over the last minute.',
      resolve: speedOf,
    }),
    eta: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'Estimated timestamp of the end; null when unknown.',
      resolve(progress) {
        const speed = speedOf(progress);
        if (!speed || progress.step === null || progress.totalSteps === null) return null;
        return new Date(progress.time + (Math.max(0, progress.totalSteps - progress.step) / speed) * 1000);
      },
    }),
    reportedAt: t.field({
      type: 'DateTime',
      description: 'Timestamp of the report.',
      resolve: (progress) => new Date(progress.time),
    }),
  }),
});

function fractionOf({ step, totalSteps, epoch, totalEpochs }: Progress): number | null {
  const [part, whole] = step !== null && totalSteps ? [step, totalSteps] : [epoch, totalEpochs];
  return part !== null && whole ? Math.min(1, Math.max(0, part / whole)) : null;
}

function speedOf({ recent }: Progress): number | null {
  const [first, last] = [recent[0], recent.at(-1)];
  if (!first || !last || last[0] <= first[0]) return null;
  return Math.max(0, ((last[1] - first[1]) / (last[0] - first[0])) * 1000);
}

JobRef.implement({
  ...viewerNeutral,
  description: 'A training job: one submission, one or more attempts.',
  interfaces: [NodeInterface],
  fields: (t) => ({
    id: t.exposeID('id', {
      description: 'Global id, e.g. `job_01kb8xw3rte9p8c3q0v5m2a7df` (sortable by time of submission).',
    }),
    number: t.exposeInt('number', {
      description:
        'Number of the job within its project, for people: `p-demo/42`. Unique and growing; numbers may be skipped.',
    }),
    name: t.exposeString('name', { description: 'Name of the job; a readable random one when none was given.' }),
    project: t.field({
      type: ProjectRef,
      description: 'Project of the job.',
      resolve: (job, _, context) => loadExisting(context, loadProjects, job.projectId),
    }),
    state: t.expose('state', { type: JobStateEnum, description: 'State of the job.' }),
    isTerminal: t.boolean({ description: 'Indicates the state is final.', resolve: (job) => isTerminal(job.state) }),
    model: t.exposeString('model', { description: 'Model to train, e.g. `bert-base`.' }),
    dataset: t.exposeString('dataset', { description: 'Dataset to train on.' }),
    command: t.stringList({
      description: 'Command that runs, as an argument vector.',
      resolve: (job) => job.effective.command,
    }),
    hyperparams: t.field({
      type: HyperparamsRef,
      description: 'Effective hyperparameters.',
      resolve: (job) => job.effective.hyperparams,
    }),
    augmentation: t.field({
      type: [AugmentationStepRef],
      description: 'Effective data augmentation, in the order in which it is applied; empty when there is none.',
      resolve: (job) => job.effective.augmentation ?? [],
    }),
    resources: t.field({
      type: ResourcesRef,
      description: 'Effective resources.',
      resolve: (job) => job.effective.resources,
    }),
    env: t.field({
      type: [EnvVarRef],
      description: 'Names of the environment variables of the job; literal values are shown, secret values never.',
      resolve: (job) => job.effective.env ?? [],
    }),
    resolved: t.field({
      type: [ResolvedValueRef],
      description: 'Every effective value with its source: why is batch_size 32?',
      extensions: { listSize: resolvedValues },
      resolve: (job) => listOf(job.resolved) as ResolvedValue[], // either is a list to graphql-js
    }),
    defaultsVersion: t.exposeString('defaultsVersion', {
      description: 'Version of the built-in defaults the job was resolved with, e.g. `v2.1`.',
    }),
    policyRevision: t.exposeInt('policyRevision', {
      description: "Revision of the project's policy the job was resolved with and checked against.",
    }),
    specHash: t.exposeString('specHash', {
      description:
        'SHA-256 of the canonical (RFC 8785) effective model, dataset, hyperparams, augmentation, resources, command, and env with secret names: equal hashes mean the same training. Name, tags, notes and priority are not in it.',
    }),
    spec: t.expose('spec', {
      type: 'JSONObject',
      description:
        'The submission as it was sent, in the snake_case of the job spec file. Feed it back to `astraml submit -f -`.',
    }),
    tags: t.exposeStringList('tags', { description: 'Free-form labels of the job.' }),
    notes: t.exposeString('notes', { nullable: true, description: 'Notes in Markdown.' }),
    priority: t.exposeInt('priority', { description: 'Priority, −100…100; larger runs first.' }),
    maxRetries: t.int({
      description: 'Number of retries allowed after a failed attempt.',
      resolve: (job) => job.effective.max_retries,
    }),
    timeoutSeconds: t.exposeInt('timeoutSeconds', {
      nullable: true,
      description: 'Seconds a job may run in all attempts together; null for no limit.',
    }),
    progress: t.field({
      type: JobProgress,
      nullable: true,
      description: 'Progress as reported by the script; null when it reports none.',
      // An ended job has no speed and no end to come.
      resolve: ({ progress, state }) => progress && { ...progress, recent: isTerminal(state) ? [] : progress.recent },
    }),
    submittedBy: t.field({
      type: ActorInterface,
      nullable: true,
      description: 'Who submitted the job.',
      resolve: (job, _, context) => loadActor(context, job.submittedBy),
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'Timestamp of when the job was accepted.' }),
    startedAt: t.expose('startedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when the first attempt started running; null before.',
    }),
    finishedAt: t.expose('finishedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when the job became terminal; null before.',
    }),
    updatedAt: t.expose('updatedAt', { type: 'DateTime', description: 'Timestamp of the last change.' }),
    defaults: t.field({
      type: DefaultsRef,
      nullable: true,
      description: 'Defaults version it was resolved with.',
      resolve: (job, _, { database }) => getDefaults(database.db, job.defaultsVersion),
    }),
    policy: t.field({
      type: PolicyRef,
      nullable: true,
      description: 'Policy revision it was resolved with and checked against.',
      resolve: (job, _, context) => load(context, loadPolicies, policyId(job.projectId, job.policyRevision)),
    }),
  }),
});

export const JobFilterInput = builder.inputType('JobFilter', {
  description: 'Selects jobs. All given fields must match.',
  fields: (t) => ({
    projectIds: t.idList({ description: 'In one of these projects.' }),
    states: t.field({ type: [JobStateEnum], description: 'In one of these states.' }),
    model: t.string({ description: 'With this model.' }),
    tags: t.stringList({ description: 'With all of these tags.' }),
    scheduleId: t.id({ description: 'Submitted by this schedule.' }),
    search: t.string({ description: 'Whose name, model, dataset, tags or notes contain this text.' }),
    createdAfter: t.field({ type: 'DateTime', description: 'Submitted at or after this timestamp.' }),
    createdBefore: t.field({ type: 'DateTime', description: 'Submitted before this timestamp.' }),
    submittedByMe: t.boolean({ description: 'Submitted by the caller.' }),
  }),
});

const OrderDirection = builder.enumType('OrderDirection', {
  description: 'Order of a connection.',
  values: { ASC: { description: 'Ascending.' }, DESC: { description: 'Descending.' } },
});

const JobOrderFieldEnum = builder.enumType('JobOrderField', {
  description: 'Field to order jobs by.',
  values: {
    CREATED_AT: { description: 'Time of submission (default).' },
    UPDATED_AT: { description: 'Time of the last change.' },
    PRIORITY: { description: 'Priority, then time of submission.' },
  },
});

const JobOrder = builder.inputType('JobOrder', {
  description: 'Orders jobs.',
  fields: (t) => ({
    field: t.field({
      type: JobOrderFieldEnum,
      required: true,
      defaultValue: 'CREATED_AT',
      description: 'Field to order by.',
    }),
    direction: t.field({
      type: OrderDirection,
      required: true,
      defaultValue: 'DESC',
      description: 'Direction.',
    }),
  }),
});

export const JobConnection = connectionType('Job', JobRef, {
  plural: 'jobs',
  noun: 'job',
  description: 'A page of jobs.',
  edgeDescription: 'A job and its cursor.',
});
addTotalCount(JobConnection, 'jobs');

const jobsArgs = builder.args((t) => ({
  filter: t.field({ type: JobFilterInput, description: 'Only jobs that match.' }),
  orderBy: t.field({ type: JobOrder, description: 'Order of the jobs.' }),
  ...pageArgs(100),
}));

export type JobsArgs = {
  filter?: JobFilter | null;
  orderBy?: { field: JobOrderField; direction: 'ASC' | 'DESC' } | null;
  first?: number | null;
  after?: string | null;
  last?: number | null;
  before?: string | null;
};

/** The job that was read, once the operation has room for it. */
async function counted(budget: Budget, job: Job | null): Promise<Job | null> {
  if (job) await budget.takeRows(bytesOfJob(job));
  return job;
}

/** A page of jobs that the caller may see. `only` beats the filter of `args`. */
export async function jobPage(context: Context, args: JobsArgs, only: JobFilter = {}): Promise<Page<Job>> {
  const actor = requireActor(context.actor);
  const { db } = context.database;
  const { field, direction } = args.orderBy ?? { field: 'CREATED_AT', direction: 'DESC' };
  const request = readPageArgs(args, 100);
  const stream = `jobs:${field}:${direction}`;
  const position = (cursor: string | undefined) => {
    if (cursor === undefined) return undefined;
    const found = decodeCursor(stream, cursor);
    if (!isJobPosition(found, field)) throw cursorInvalid();
    return found;
  };
  const filter = { ...args.filter, ...only };
  requireUsable(filter);
  const { jobs, isCut } = await listJobsInSlices(db, actor, {
    filter,
    field,
    descending: direction === 'DESC',
    limit: request.limit,
    backward: request.backward,
    after: position(request.after),
    before: position(request.before),
  });
  await context.budget.takeRows(bytesOfJobs(jobs));
  const page = toPage(jobs, request, (row) => encodeCursor(stream, jobPosition(row, field)));
  return {
    ...page,
    hasNextPage: page.hasNextPage || (isCut && !request.backward),
    hasPreviousPage: page.hasPreviousPage || (isCut && request.backward),
    countAll: () => countJobs(db, actor, filter),
  };
}

/** Throws BAD_USER_INPUT for a filter with too many or too long texts. */
export function requireUsable(filter: JobFilter): void {
  for (const [name, value] of Object.entries(filter)) {
    const texts = [value].flat().filter((item) => typeof item === 'string');
    if (texts.length > 1_000 || texts.some((text) => text.length > 1_000 || text.includes('\0'))) {
      throw badInput(`${name} takes at most 1000 texts, each of at most 1000 characters, without NUL.`, [
        'filter',
        name,
      ]);
    }
  }
}

builder.objectFields(ProjectRef, (t) => ({
  jobs: t.field({
    type: JobConnection,
    description: 'Jobs of the project, newest first.',
    args: jobsArgs,
    resolve: (project, args, context) => jobPage(context, args, { projectIds: [project.id] }),
  }),
  job: t.field({
    type: JobRef,
    nullable: true,
    description: 'Job with this number; null when there is none.',
    args: {
      number: t.arg.int({ required: true, description: 'Number of the job in the project: 42 of `p-demo/42`.' }),
    },
    resolve: async (project, { number }, { database, budget }) =>
      counted(budget, await getJobByNumber(database.db, project.id, number)),
  }),
}));

builder.objectField(IdempotencyConflictError, 'existingJob', (t) =>
  t.field({
    type: JobRef,
    nullable: true,
    description: 'Job the key belongs to; null when it belongs to something else.',
    resolve: ({ details }, _, { actor, database }) =>
      details.existingId ? getJob(database.db, requireActor(actor), details.existingId) : null,
  }),
);

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

builder.queryFields((t) => ({
  job: t.field({
    type: JobRef,
    nullable: true,
    description: 'Job with this id; null when it does not exist or the caller may not see it.',
    args: { id: t.arg.id({ required: true, description: 'Id of the job; by number it is `Project.job(number:)`.' }) },
    resolve: async (_, { id }, { actor, database, budget }) =>
      counted(budget, await getJob(database.db, requireActor(actor), id)),
  }),
  jobs: t.field({
    type: JobConnection,
    description: 'Jobs of all projects the caller can see, newest first.',
    args: jobsArgs,
    resolve: (_, args, context) => jobPage(context, args),
  }),
  previewJob: t.field({
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
}));

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

type SubmitJobPayload = { job: Job; replayed: boolean; warnings: Warning[] };
export const SubmitJobPayloadRef = builder.objectRef<SubmitJobPayload>('SubmitJobPayload').implement({
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
    const submission = {
      spec: fromInput(input.spec),
      issues: shadowedExtras(input.spec),
      idempotencyKey: input.idempotencyKey ?? context.idempotencyKey,
      expectedSpecHash: input.expectedSpecHash ?? null,
      at,
    };
    return submit(context, actor, submission);
  },
});

/**
 * The job that the caller asks to follow. Many who ask at once cost one reading; whether they may is asked of each. Throws
 * NOT_FOUND for a job that is not there or that the caller may not see.
 */
export async function requireFollowed({ actor, database, feeds }: Context, jobId: string): Promise<JobReading> {
  const caller = requireActor(actor);
  const found = await feeds.readFirst(`job:${jobId}`, () => findJob(database.db, jobId));
  if (!found || !canSee(caller, found.job.projectId)) throw notFound('Job', jobId, ['jobId']);
  return found;
}

const JobUpdate = builder.objectRef<{ job: Job; done: boolean }>('JobUpdate').implement({
  description: 'A job after a change.',
  fields: (t) => ({
    job: t.expose('job', {
      type: JobRef,
      description:
        'The job after the change. Its `id` lets normalised caches (Apollo, urql, Relay) update every view of it.',
    }),
    done: t.exposeBoolean('done', {
      description: 'Indicates the job is terminal; the subscription completes after this message.',
    }),
  }),
});

builder.subscriptionField('jobUpdated', (t) =>
  t.field({
    type: JobUpdate,
    description: 'A job, at once and after every change: a snapshot each time. Completes when the job is terminal.',
    args: { jobId: t.arg.id({ required: true, description: 'Id of the job.' }) },
    async subscribe(_, { jobId }, context) {
      await requireFollowed(context, jobId);
      let sent = -1;
      return context.feeds.follow<{ job: Job; done: boolean }>({
        channel: channels.job(jobId),
        async read() {
          const { job, revision } = await readJob(context.database.db, jobId);
          const value = revision > sent ? { job, done: isTerminal(job.state) } : null;
          sent = revision;
          return { value, seen: { revision }, more: false, done: isTerminal(job.state) };
        },
      });
    },
    resolve: asOfNow,
  }),
);
