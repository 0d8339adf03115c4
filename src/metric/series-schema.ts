// `Metric.series`: points of a metric for a chart. All series that one operation asks of a job are
// read in one scan.
import DataLoader from 'dataloader';
import { loadAttemptsOfJobs } from '../attempt/attempt.ts';
import { builder, type Context } from '../graphql/builder.ts';
import { badInput } from '../graphql/node.ts';
import { type Job, loadJobs } from '../job/job.ts';
import { axes, maxUnreduced, type Series, type SeriesRequest } from './collector.ts';
import { readSeries } from './points.ts';
import { MetricPointRef, MetricRef } from './schema.ts';
import { downsamplings } from './series.ts';

const defaultPoints = 500;

const MetricAxis = builder.enumType('MetricAxis', {
  description: 'X axis of a metric series.',
  values: {
    STEP: { description: 'Training step (default).' },
    EPOCH: { description: 'Epoch, fractional.' },
    TIME: { description: 'Wall-clock time, as seconds since the Unix epoch.' },
    RELATIVE_TIME: { description: 'Seconds since the attempt started running.' },
  } satisfies Record<(typeof axes)[number], object>,
});

const DownsamplingEnum = builder.enumType('Downsampling', {
  description: 'How a long series is reduced to `maxPoints`.',
  values: {
    LTTB: { description: 'Largest-Triangle-Three-Buckets: keeps the visual shape (default).' },
    MIN_MAX: { description: 'Minimum and maximum of every bucket: keeps every spike.' },
    MEAN: { description: 'Mean of every bucket, with min and max alongside for a band.' },
    NONE: {
      description: 'No reduction; fails with `BAD_USER_INPUT` if the series is longer than 50 000 points.',
    },
  } satisfies Record<(typeof downsamplings)[number], object>,
});

const MetricSeriesRef = builder.objectRef<Series>('MetricSeries').implement({
  description: 'A series in columns, ready for a chart library: `x[i]` belongs to `y[i]`.',
  fields: (t) => ({
    x: t.exposeFloatList('x', { description: 'X values, ascending.' }),
    y: t.exposeFloatList('y', {
      nullable: { list: false, items: true },
      description: 'Y values; null marks a gap or a value that is not finite.',
    }),
    yMin: t.exposeFloatList('yMin', {
      nullable: { list: true, items: true },
      description: 'Smallest value of each bucket; null unless `MEAN`.',
    }),
    yMax: t.exposeFloatList('yMax', {
      nullable: { list: true, items: true },
      description: 'Largest value of each bucket; null unless `MEAN`.',
    }),
    nonFinite: t.expose('nonFinite', {
      type: [MetricPointRef],
      description: 'Points that are NaN or infinite, oldest first, at most 1000.',
    }),
    sourceCount: t.expose('sourceCount', { type: 'SafeInt', description: 'Number of points before reduction.' }),
    windowSeconds: t.exposeInt('windowSeconds', {
      nullable: true,
      description: 'Length in seconds of the windows that answered; null when raw points did.',
    }),
  }),
});

builder.objectField(MetricRef, 'series', (t) =>
  t.field({
    type: MetricSeriesRef,
    description: 'Points of the metric, reduced to at most `maxPoints`. Costs a point for each ten of them.',
    extensions: { weight: seriesWeight },
    args: {
      x: t.arg({ type: MetricAxis, defaultValue: 'STEP', description: 'X axis.' }),
      from: t.arg.float({ description: 'Smallest x, inclusive.' }),
      to: t.arg.float({ description: 'Largest x, inclusive.' }),
      maxPoints: t.arg.int({ defaultValue: defaultPoints, description: 'Largest number of points returned, 10–5000.' }),
      downsampling: t.arg({ type: DownsamplingEnum, defaultValue: 'LTTB', description: 'How to reduce.' }),
      attempt: t.arg.int({
        description: 'Only this attempt; by default each attempt overwrites the steps it repeats.',
      }),
    },
    async resolve({ jobId, name }, args, context, info) {
      const maxPoints = args.maxPoints ?? defaultPoints;
      if (maxPoints < 10 || maxPoints > 5_000) {
        throw badInput(`maxPoints is ${maxPoints}; it goes from 10 to 5000.`, ['maxPoints']);
      }
      const { from = null, to = null, attempt = null } = args;
      if (from !== null && to !== null && from > to) throw badInput(`from is ${from}, beyond to, ${to}.`, ['from']);
      const { x, downsampling } = args;
      const request = { name, x: x ?? 'STEP', from, to, maxPoints, downsampling: downsampling ?? 'LTTB', attempt };
      const series = await loaderOf(context, info.getAbortSignal()).load({ jobId, request });
      await context.budget.takeRows((series.x.length + series.nonFinite.length) * pointBytes);
      return series;
    },
  }),
);

/** Approximate bytes of one point in an answer: an x, a y and its bounds. */
const pointBytes = 64;

function seriesWeight(argument: (name: string) => unknown): number {
  const points = argument('downsampling') === 'NONE' ? maxUnreduced : (argument('maxPoints') ?? defaultPoints);
  return typeof points === 'number' ? Math.max(0, points) / 10 : 0;
}

type SeriesKey = { jobId: string; request: SeriesRequest };

function loaderOf(context: Context, signal: AbortSignal | undefined): DataLoader<SeriesKey, Series, string> {
  const existing = context.loaders.get(loaderOf) as DataLoader<SeriesKey, Series, string> | undefined;
  if (existing) return existing;
  const loader = new DataLoader<SeriesKey, Series, string>((keys) => inTurn(() => loadSeries(context, keys, signal)), {
    cacheKeyFn: (key) => JSON.stringify(key),
  });
  context.loaders.set(loaderOf, loader);
  return loader;
}

async function loadSeries({ database: { db }, config }: Context, keys: readonly SeriesKey[], signal?: AbortSignal) {
  const results = new Map<SeriesKey, Series | Error>();
  for (const [jobId, group] of Map.groupBy(keys, (item) => item.jobId)) {
    const job = (await loadJobs(db, [jobId])).get(jobId) as Job;
    const attempts = (await loadAttemptsOfJobs(db, [jobId])).get(jobId) ?? [];
    const source = { job, attempts, retention: config, ...(signal ? { signal } : {}) };
    const series = await readSeries(
      db,
      source,
      group.map(({ request }) => request),
    );
    for (const [index, item] of group.entries()) results.set(item, series[index] ?? new Error('A series is missing.'));
  }
  return keys.map((item) => results.get(item) ?? new Error('A series is missing.'));
}

let turn: Promise<unknown> = Promise.resolve();

/**
 * Reads the series of one operation at a time, over the whole process: each read may hold some
 * hundred megabytes.
 */
async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const mine = turn.then(work);
  turn = mine.catch(() => {});
  return mine;
}
