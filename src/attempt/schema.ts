// GraphQL: attempts, the reason of a job's state, and cancelling a job.
import { requireActor } from '../actor.ts';
import { builder, type Context, load, loadExisting, type LoadMany } from '../graphql/builder.ts';
import {
  addMutation,
  InvalidStateError,
  NotFoundError,
  PermissionError,
  ValidationError,
} from '../graphql/mutation.ts';
import { NodeInterface, registerNode } from '../graphql/node.ts';
import { getJob, type Job, loadJobs } from '../job/job.ts';
import { JobRef, JobStateEnum } from '../job/schema.ts';
import type { ReasonCode, StateReason } from '../job/state.ts';
import { commit } from '../live/commit.ts';
import { loadRunners } from '../runner/runner.ts';
import { GpuRef, RunnerRef } from '../runner/schema.ts';
import { WarningRef } from '../spec/schema.ts';
import type { Warning } from '../spec/spec.ts';
import { JobPayloadRef } from '../submission/edit-schema.ts';
import type { JobPlan } from '../submission/plan.ts';
import { JobPreviewRef, SubmitJobPayloadRef } from '../submission/schema.ts';
import { type Attempt, loadActiveAttempts, loadAttempts, loadAttemptsOfJobs } from './attempt.ts';
import { cancelJob } from './cancel.ts';
import { type Cluster, explainWait, fit, type Request } from './place.ts';
import { countBefore, listQueue, readCluster, requestOf } from './queue.ts';
import { type WaitReads, waitReason } from './wait.ts';

const JobStateReasonCode = builder.enumType('JobStateReasonCode', {
  description: 'Why a job is in its state.',
  values: {
    WAITING_FOR_RUNNER: { description: 'No runner matches the requested resources or labels.' },
    WAITING_FOR_GPUS: { description: 'Matching runners exist, but all their GPUs are busy.' },
    WAITING_FOR_PLACES: {
      description: 'Matching runners exist, but run as many jobs as they take at once; see `Runner.places`.',
    },
    RETRY_BACKOFF: { description: 'Waiting before the next attempt (exponential backoff).' },
    COMPLETED: { description: 'The command exited 0.' },
    EXIT_CODE: { description: 'The command exited with a non-zero code.' },
    SIGNAL: { description: 'The command was killed by a signal.' },
    OUT_OF_MEMORY: { description: 'The host or cgroup ran out of memory.' },
    CUDA_OUT_OF_MEMORY: { description: 'The GPU ran out of memory (detected in the log).' },
    RUNNER_LOST: { description: 'The runner stopped sending heartbeats.' },
    RUNNER_DRAINED: { description: 'The runner is draining and handed the job back.' },
    RECORD_REFUSED: {
      description: 'The start or the end of the attempt, or too many of its records, could not be stored.',
    },
    COMMAND_NOT_STARTED: {
      description: 'The command could not be started (not found, not executable, bad working directory).',
    },
    REQUESTED: { description: 'A user or a token asked for it.' },
    REPLACED_BY_SCHEDULE: { description: 'A schedule with `REPLACE` started a newer job.' },
    TIMEOUT: { description: '`timeoutSeconds` passed.' },
    QUEUE_TIMEOUT: { description: '`queueTimeoutSeconds` passed before a runner took the job.' },
    START_TIMEOUT: { description: '`startTimeoutSeconds` passed before the command ran.' },
  } satisfies Record<ReasonCode, { description: string }>,
});

const JobStateReason = builder.objectRef<StateReason>('JobStateReason').implement({
  description: 'Why a job is in its state, for machines and people.',
  fields: (t) => ({
    code: t.expose('code', { type: JobStateReasonCode, description: 'Machine-readable code.' }),
    message: t.exposeString('message', { description: 'One sentence, e.g. `Exit code 1 after 3m 12s`.' }),
    hint: t.exposeString('hint', {
      nullable: true,
      description: 'What to do about it; null when there is nothing useful to say.',
    }),
    logExcerpt: t.stringList({
      description:
        'Last lines of the log before the failure, escape sequences removed; empty when the job did not fail.',
      resolve: (reason) => reason.logExcerpt ?? [],
    }),
  }),
});

const JobAttempt = builder.objectRef<Attempt>('JobAttempt').implement({
  description: "One execution of a job's command.",
  interfaces: [NodeInterface],
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Global id of the attempt.' }),
    number: t.exposeInt('number', { description: 'Number of the attempt, 1 is the first.' }),
    runner: t.field({
      type: RunnerRef,
      nullable: true,
      description: 'Runner that executed the attempt.',
      resolve: (attempt, _, context) => load(context, loadRunners, attempt.runnerId),
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'Timestamp of when the attempt was claimed.' }),
    startedAt: t.expose('startedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when the command started; null before.',
    }),
    finishedAt: t.expose('finishedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Timestamp of when the command ended; null before.',
    }),
    exitCode: t.exposeInt('exitCode', {
      nullable: true,
      description: 'Exit code of the command; null while it runs or when a signal ended it.',
    }),
    signal: t.exposeString('signal', {
      nullable: true,
      description: 'Signal that ended the command, e.g. `SIGKILL`; null otherwise.',
    }),
    reason: t.field({
      type: JobStateReason,
      nullable: true,
      description: 'Why the attempt ended; null while it runs.',
      resolve: (attempt) => reasonOf(attempt),
    }),
    job: t.field({
      type: JobRef,
      description: 'The job.',
      resolve: (attempt, _, context) => loadExisting(context, loadJobs, attempt.jobId),
    }),
    state: t.expose('state', { type: JobStateEnum, description: 'State the attempt is in, or ended in.' }),
  }),
});

registerNode('att', 'JobAttempt', async (context, actor, id) => {
  const attempt = await load(context, loadAttempts, id);
  return attempt && (await getJob(context.database.db, actor, attempt.jobId)) ? attempt : null;
});

function reasonOf(row: Pick<Job, 'reasonCode' | 'reasonMessage' | 'reasonHint' | 'logExcerpt'>): StateReason | null {
  const { reasonCode: code, reasonMessage: message, reasonHint: hint, logExcerpt } = row;
  return code ? { code, message: message ?? '', hint, logExcerpt } : null;
}

/** The state of all runners, read once an operation. */
const loadCluster: LoadMany<'now', Cluster> = async (db) => new Map([['now', await readCluster(db)]]);

async function clusterOf(context: Context): Promise<Cluster> {
  return loadExisting(context, loadCluster, 'now');
}

/** Places in the queue by id of the job, from 1, read once an operation. */
const loadQueue: LoadMany<'now', Map<string, number>> = async (db) => {
  const queue = await listQueue(db, await readCluster(db));
  return new Map([['now', new Map(queue.map((id, index) => [id, index + 1]))]]);
};

async function queuePosition(job: Job, context: Context): Promise<number | null> {
  if (job.state !== 'QUEUED') return null;
  const places = await loadExisting(context, loadQueue, 'now');
  return places.get(job.id) ?? (await countBefore(context.database.db, job)) + 1;
}

/** Sources of `waitReason` for an operation: values that many jobs need are read once. */
function readsOfOperation(context: Context): WaitReads {
  return {
    cluster: () => clusterOf(context),
    runnerName: async (id) => (await load(context, loadRunners, id))?.name,
  };
}

builder.objectFields(JobRef, (t) => ({
  stateReason: t.field({
    type: JobStateReason,
    nullable: true,
    description: 'Why the job is in its state.',
    resolve: (job, _, context) => (job.state === 'QUEUED' ? waitReason(job, readsOfOperation(context)) : reasonOf(job)),
  }),
  queuePosition: t.int({
    nullable: true,
    description: 'Position in the queue, 1 is next; null unless `QUEUED`.',
    resolve: (job, _, context) => queuePosition(job, context),
  }),
  attempts: t.field({
    type: [JobAttempt],
    description: 'Attempts of the job, oldest first.',
    resolve: async (job, _, context) => (await load(context, loadAttemptsOfJobs, job.id)) ?? [],
  }),
  currentAttempt: t.field({
    type: JobAttempt,
    nullable: true,
    description: 'Current or last attempt; null before the first starts.',
    resolve: async (job, _, context) => (await load(context, loadAttemptsOfJobs, job.id))?.at(-1),
  }),
}));

builder.objectField(RunnerRef, 'activeJobs', (t) =>
  t.field({
    type: [JobRef],
    description: 'Jobs the runner executes now, of those that the caller may see.',
    async resolve(runner, _, context) {
      const attempts = (await load(context, loadActiveAttempts, runner.id)) ?? [];
      const jobs = await Promise.all(attempts.map((attempt) => visibleJob(context, attempt.jobId)));
      return jobs.filter((job) => job !== null);
    },
  }),
);

builder.objectField(RunnerRef, 'placesBusy', (t) =>
  t.int({
    description: 'Places that jobs take now, also jobs the caller may not see.',
    resolve: async (runner, _, context) => ((await load(context, loadActiveAttempts, runner.id)) ?? []).length,
  }),
);

builder.objectFields(GpuRef, (t) => ({
  job: t.field({
    type: JobRef,
    nullable: true,
    description: 'Job that owns the GPU; null when it is free, or the caller may not see the job.',
    async resolve(gpu, _, context) {
      const attempt = await attemptOn(context, gpu);
      return attempt ? visibleJob(context, attempt.jobId) : null;
    },
  }),
  busy: t.boolean({
    description: 'Indicates a job uses it, also one the caller may not see.',
    resolve: async (gpu, _, context) => (await attemptOn(context, gpu)) !== undefined,
  }),
}));

async function attemptOn(context: Context, gpu: { runnerId: string; index: number }): Promise<Attempt | undefined> {
  const attempts = (await load(context, loadActiveAttempts, gpu.runnerId)) ?? [];
  return attempts.find((attempt) => attempt.gpus.includes(gpu.index));
}

function visibleJob(context: Context, jobId: string): Promise<Job | null> {
  return getJob(context.database.db, requireActor(context.actor), jobId);
}

async function runnerWarnings(context: Context, request: Request): Promise<Warning[]> {
  const wait = explainWait(request, (await clusterOf(context)).machines);
  if (wait.code !== 'WAITING_FOR_RUNNER') return [];
  return [{ code: 'NO_MATCHING_RUNNER', message: `${wait.message} The job will wait.`, path: null }];
}

builder.objectField(SubmitJobPayloadRef, 'warnings', (t) =>
  t.field({
    type: [WarningRef],
    description: 'Advice that does not block.',
    resolve: async (payload, _, context) => [
      ...payload.warnings,
      ...(payload.job.state === 'QUEUED' ? await runnerWarnings(context, requestOf(payload.job)) : []),
    ],
  }),
);

function requestOfPlan({ spec, effective }: JobPlan & { ready: true }): Request {
  return requestOf({ projectId: spec.project_id, effective });
}

builder.objectFields(JobPreviewRef, (t) => ({
  warnings: t.field({
    type: [WarningRef],
    description: 'Advice that does not block, e.g. a hyperparameter that nobody knows, or that no runner matches.',
    resolve: async (plan, _, context) => [
      ...plan.warnings,
      ...(plan.ready ? await runnerWarnings(context, requestOfPlan(plan)) : []),
    ],
  }),
  matchingRunners: t.int({
    description: 'Runners that could take the job now.',
    async resolve(plan, _, context) {
      if (!plan.ready) return 0;
      const request = requestOfPlan(plan);
      return (await clusterOf(context)).machines.filter((runner) => fit(request, runner)).length;
    },
  }),
}));

addMutation('cancelJob', {
  description:
    'Asks a job to stop. Cancelling a cancelled job succeeds; any other terminal state is an `InvalidStateError`.',
  inputDescription: 'What to cancel.',
  input: builder.inputType('CancelJobInput', {
    description: 'Input of `cancelJob`.',
    fields: (t) => ({
      id: t.id({ required: true, description: 'Id of the job.' }),
      reason: t.string({ description: 'Reason shown to people.' }),
      gracePeriodSeconds: t.int({
        description: "Seconds between SIGTERM and SIGKILL, 0–3600; the runner's setting when null.",
      }),
    }),
  }),
  payload: JobPayloadRef,
  errors: [NotFoundError, PermissionError, InvalidStateError, ValidationError],
  async resolve(input, context) {
    const actor = requireActor(context.actor);
    const cancel = {
      id: input.id,
      reason: input.reason ?? null,
      gracePeriodSeconds: input.gracePeriodSeconds ?? null,
    };
    return { job: await commit(context, (tx) => cancelJob(tx, actor, cancel)) };
  },
});
