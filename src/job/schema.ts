// The type `Job` in GraphQL, and the subscription `jobUpdated`. Rooms below add their own fields to
// the type, e.g. `log/schema.ts` adds `Job.logs`.
import { canSee, requireActor } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import { getDefaults } from '../defaults/defaults.ts';
import { DefaultsRef } from '../defaults/schema.ts';
import { notFound } from '../errors.ts';
import { asOfNow, builder, type Context, load, loadExisting, viewerNeutral } from '../graphql/builder.ts';
import { IdempotencyConflictError } from '../graphql/mutation.ts';
import { ActorInterface, loadActor, NodeInterface, registerNode } from '../graphql/node.ts';
import { listOf } from '../graphql/page.ts';
import { loadPolicies, policyId } from '../policy/policy.ts';
import { PolicyRef } from '../policy/schema.ts';
import { loadProjects } from '../project/project.ts';
import { ProjectRef } from '../project/schema.ts';
import type { ResolvedValue } from '../spec/resolve.ts';
import { AugmentationStepRef, EnvVarRef, HyperparamsRef, ResolvedValueRef, ResourcesRef } from '../spec/schema.ts';
import { findJob, getJob, type Job, type JobReading, readJob } from './job.ts';
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

/**
 * Length of `Job.resolved` by which its cost is computed: a few more than the values that a job
 * gets by default.
 */
export const resolvedValues = 50;

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
      // graphql-js takes an AsyncIterable for a list
      resolve: (job) => listOf(job.resolved) as ResolvedValue[],
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
      // Without samples, speed and end are null, as they must be for an ended job.
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

builder.objectField(IdempotencyConflictError, 'existingJob', (t) =>
  t.field({
    type: JobRef,
    nullable: true,
    description: 'Job the key belongs to; null when it belongs to something else.',
    resolve: ({ details }, _, { actor, database }) =>
      details.existingId ? getJob(database.db, requireActor(actor), details.existingId) : null,
  }),
);

/**
 * Returns the job that a caller wants to follow. Callers that ask at the same time share one read;
 * the permission of each is checked. Throws NOT_FOUND for a job that does not exist or that the
 * caller may not see.
 */
export async function requireFollowed({ actor, database, feeds }: Context, jobId: string): Promise<JobReading> {
  const caller = requireActor(actor);
  const reading = await feeds.readFirst(`job:${jobId}`, () => findJob(database.db, jobId));
  if (!reading || !canSee(caller, reading.job.projectId)) throw notFound('Job', jobId, ['jobId']);
  return reading;
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
