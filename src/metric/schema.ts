// `Job.metrics` in GraphQL: names, summaries and newest values. Windows, series and `jobMetrics`
// have schema files of their own.
import { builder, loadExisting } from '../graphql/builder.ts';
import { badInput, NodeInterface, registerNode } from '../graphql/node.ts';
import { listOf } from '../graphql/page.ts';
import { getJob, loadJobs } from '../job/job.ts';
import { JobRef } from '../job/schema.ts';
import { MetricGoal } from '../spec/schema.ts';
import { countMetrics, getMetric, goalOf, listMetrics, type Metric } from './metric.ts';
import type { StoredPoint } from './table.ts';
import { fromStored } from './window.ts';

const maxMetrics = 1_000;
/** Estimated memory of a metric, in bytes. */
const metricBytes = 1_000;

export function metricId(jobId: string, name: string): string {
  return `met_${jobId.slice('job_'.length)}_${Buffer.from(name).toString('base64url')}`;
}

type MetricNode = Metric & { id: string };
const withId = (metric: Metric): MetricNode => ({ ...metric, id: metricId(metric.jobId, metric.name) });

export const MetricPointRef = builder.objectRef<StoredPoint>('MetricPoint').implement({
  description: 'One reported value.',
  fields: (t) => ({
    step: t.expose('step', {
      type: 'SafeInt',
      nullable: true,
      description: 'Training step; null when the script gave none.',
    }),
    epoch: t.exposeFloat('epoch', { nullable: true, description: 'Epoch; null when the script gave none.' }),
    time: t.field({
      type: 'DateTime',
      description: 'Timestamp of the report.',
      resolve: (point) => new Date(point.time),
    }),
    value: t.field({
      type: 'MetricValue',
      description: 'The value.',
      resolve: (point) => fromStored(point.value),
    }),
    attempt: t.exposeInt('attempt', { description: 'Number of the attempt.' }),
  }),
});

export const MetricRef = builder.objectRef<MetricNode>('Metric').implement({
  description: 'A metric of a job.',
  interfaces: [NodeInterface],
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Global id.' }),
    job: t.field({
      type: JobRef,
      description: 'The job.',
      resolve: (metric, _, context) => loadExisting(context, loadJobs, metric.jobId),
    }),
    name: t.exposeString('name', {
      description: `Name of the metric, e.g. \`train/loss\`. The runner reports two of its own every 10 s: \`system/cpu\`, in percent of one core, and
\`system/memory\`, in bytes.`,
    }),
    goal: t.field({
      type: MetricGoal,
      nullable: true,
      description: 'Whether smaller or larger is better; null when unknown.',
      resolve: async ({ jobId, name }, _, context) => goalOf(await loadExisting(context, loadJobs, jobId), name),
    }),
    count: t.expose('count', { type: 'SafeInt', description: 'Number of points.' }),
    last: t.expose('last', { type: MetricPointRef, description: 'Newest point.' }),
    min: t.expose('min', {
      type: MetricPointRef,
      nullable: true,
      description: 'Point with the smallest finite value; null when no value is finite.',
    }),
    max: t.expose('max', {
      type: MetricPointRef,
      nullable: true,
      description: 'Point with the largest finite value; null when no value is finite.',
    }),
  }),
});

registerNode('met', 'Metric', async ({ database }, actor, id) => {
  const [, job = '', name = ''] = /^met_([0-9a-z]{26})_([\w-]+)$/.exec(id) ?? [];
  const jobId = `job_${job}`;
  if (!job || !(await getJob(database.db, actor, jobId))) return null;
  const decoded = Buffer.from(name, 'base64url').toString();
  const metric = decoded.includes('\0') ? null : await getMetric(database.db, jobId, decoded);
  return metric && withId(metric);
});

builder.objectField(JobRef, 'metrics', (t) =>
  t.field({
    type: [MetricRef],
    description: `Names, latest values and summaries of the job's metrics, ordered by name, in pages: \`metricCount\` says how many there are. Cheap:
reads no points.`,
    extensions: { listSize: metricsAsked },
    args: {
      names: t.arg.stringList({
        description: 'Only metrics with these names; a trailing `*` matches a prefix (`train/*`).',
      }),
      first: t.arg.int({ defaultValue: maxMetrics, description: `Page size, 1–${maxMetrics}.` }),
      after: t.arg.string({ description: 'Name to start after: that of the last metric of the page before.' }),
    },
    async resolve(job, { names, first, after }, { database, budget }) {
      const size = first ?? maxMetrics;
      if (size < 1 || size > maxMetrics)
        throw badInput(`first is ${size}; it goes from 1 to ${maxMetrics}.`, ['first']);
      const page = {
        first: size,
        after: checkNames(after === null || after === undefined ? null : [after], 'after')?.[0],
      };
      const metrics = await listMetrics(database.db, job.id, checkNames(names), page);
      await budget.takeRows(metrics.length * metricBytes);
      // graphql-js takes an AsyncIterable for a list
      return listOf(metrics.map(withId)) as MetricNode[];
    },
  }),
);
builder.objectField(JobRef, 'metricCount', (t) =>
  t.int({
    description: 'Number of metrics that the job has reported. Costs 10 points.',
    extensions: { weight: () => 10 },
    resolve: (job, _, { database }) => countMetrics(database.db, job.id),
  }),
);

/**
 * Number of metrics by which the cost of a page without `first` is computed. By the 1,000 that it
 * may hold, an ordinary `metrics { windows(first: 500) { nodes { mean } } }` would be refused; a
 * page with more than 20 is bounded by its bytes.
 */
const usualMetrics = 20;

/**
 * Returns the number of metrics by which the cost of a page is computed: at most that of `names`,
 * unless one of them is a prefix such as `train/*`.
 */
function metricsAsked(argument: (name: string) => unknown): number {
  const [first, names] = [argument('first'), argument('names')];
  const isExact = Array.isArray(names) && names.every((name) => typeof name === 'string' && !name.endsWith('*'));
  const most = typeof first === 'number' ? Math.min(Math.max(first, 0), maxMetrics) : usualMetrics;
  return isExact ? Math.min(most, names.length) : most;
}

/**
 * Returns the names of an argument, null for all. Throws BAD_USER_INPUT for more than 100 names or
 * one that is too long.
 */
export function checkNames(names: string[] | null | undefined, argument = 'names'): string[] | null {
  if (!names) return null;
  if (names.length > 100 || names.some((name) => name.length > 251 || name.includes('\0'))) {
    throw badInput(`${argument} takes at most 100 names of metrics, each of at most 250 characters.`, [argument]);
  }
  return names;
}
