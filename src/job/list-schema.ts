// `job` and `jobs` in GraphQL: filters, orders and pages.
import { requireActor } from '../actor.ts';
import type { Budget } from '../graphql/budget.ts';
import { builder, type Context } from '../graphql/builder.ts';
import { badInput } from '../graphql/node.ts';
import { addTotalCount, connectionType, type Page, pageArgs, readPageArgs, toPage } from '../graphql/page.ts';
import { cursorInvalid, decodeCursor, encodeCursor } from '../live/cursor.ts';
import { ProjectRef } from '../project/schema.ts';
import { bytesOfJob, bytesOfJobs, listJobsInSlices } from './bytes.ts';
import { getJob, getJobByNumber, type Job } from './job.ts';
import { countJobs, isJobPosition, type JobFilter, type JobOrderField, jobPosition } from './list.ts';
import { JobRef, JobStateEnum } from './schema.ts';

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

/**
 * Returns the job after it took its bytes from the budget of the operation, which may throw
 * OPERATION_TOO_LARGE.
 */
async function withinBudget(budget: Budget, job: Job | null): Promise<Job | null> {
  if (job) await budget.takeRows(bytesOfJob(job));
  return job;
}

/**
 * Returns a page of jobs that the caller may see. A field of `only` replaces the same field of the
 * filter in `args`.
 */
export async function jobPage(context: Context, args: JobsArgs, only: JobFilter = {}): Promise<Page<Job>> {
  const actor = requireActor(context.actor);
  const { db } = context.database;
  const { field, direction } = args.orderBy ?? { field: 'CREATED_AT', direction: 'DESC' };
  const request = readPageArgs(args, 100);
  const stream = `jobs:${field}:${direction}`;
  const position = (cursor: string | undefined) => {
    if (cursor === undefined) return undefined;
    const place = decodeCursor(stream, cursor);
    if (!isJobPosition(place, field)) throw cursorInvalid();
    return place;
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

/**
 * Throws BAD_USER_INPUT for a filter with more than 1,000 texts in a field, or a text of more than
 * 1,000 characters or with a NUL.
 */
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
      withinBudget(budget, await getJobByNumber(database.db, project.id, number)),
  }),
}));

builder.queryFields((t) => ({
  job: t.field({
    type: JobRef,
    nullable: true,
    description: 'Job with this id; null when it does not exist or the caller may not see it.',
    args: { id: t.arg.id({ required: true, description: 'Id of the job; by number it is `Project.job(number:)`.' }) },
    resolve: async (_, { id }, { actor, database, budget }) =>
      withinBudget(budget, await getJob(database.db, requireActor(actor), id)),
  }),
  jobs: t.field({
    type: JobConnection,
    description: 'Jobs of all projects the caller can see, newest first.',
    args: jobsArgs,
    resolve: (_, args, context) => jobPage(context, args),
  }),
}));
