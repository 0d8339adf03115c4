// `Metric.windows`: aggregates of a metric over time, in pages. A cursor holds a place among the
// windows of the metric and a change number: the next page goes on from the place, `jobMetrics`
// from the change.
import { builder, type Context, viewerNeutral } from '../graphql/builder.ts';
import { badInput } from '../graphql/node.ts';
import { connectionType, type Page, pageArgs, readPageArgs, toPage } from '../graphql/page.ts';
import { type Job, readJob } from '../job/job.ts';
import { cursorInvalid, decodeCursor, encodeCursor, isCount } from '../live/cursor.ts';
import { changeBefore, listMerged, type Window } from './merged.ts';
import { metricId, MetricRef } from './schema.ts';
import { type Plan, planByCount, planWindows, type WindowRange } from './window-plan.ts';
import { fromStored, meanOf, quantileOf } from './window.ts';

const maxPage = 1_000;
/** Estimated memory of a window without its buckets, in bytes. */
export const windowBytes = 1_000;
const bucketBytes = 12;

export const MetricWindowRef = builder.objectRef<Window>('MetricWindow').implement({
  ...viewerNeutral,
  description: 'Aggregates of one metric in one time window, aligned to the Unix epoch.',
  fields: (t) => ({
    id: t.id({
      description: 'Global id of metric, attempt, length and start: a later revision has the same.',
      resolve: (window) => `${metricId(window.jobId, window.name)}:${window.attempt}:${window.seconds}:${window.start}`,
    }),
    name: t.exposeString('name', { description: 'Name of the metric.' }),
    attempt: t.exposeInt('attempt', { description: 'Number of the attempt.' }),
    windowSeconds: t.exposeInt('seconds', { description: 'Length of the window in seconds.' }),
    start: t.field({
      type: 'DateTime',
      description: 'Timestamp of the start, inclusive.',
      resolve: (window) => new Date(window.start * 1000),
    }),
    end: t.field({
      type: 'DateTime',
      description: 'Timestamp of the end, exclusive.',
      resolve: (window) => new Date((window.start + window.seconds) * 1000),
    }),
    revision: t.exposeInt('revision', {
      description: 'Revision of the window; grows with every stored change, the closing included. Keep the highest.',
    }),
    count: t.field({ type: 'SafeInt', description: 'Number of points.', resolve: ({ state }) => state.count }),
    min: t.float({
      nullable: true,
      description: 'Smallest finite value; null when there is none.',
      resolve: ({ state }) => state.min,
    }),
    max: t.float({
      nullable: true,
      description: 'Largest finite value; null when there is none.',
      resolve: ({ state }) => state.max,
    }),
    mean: t.float({
      nullable: true,
      description: 'Mean of the finite values; null when there is none.',
      resolve: ({ state }) => meanOf(state),
    }),
    p50: t.float({
      nullable: true,
      description: 'Median of the finite values, within 1 % relative error; null when there is none.',
      resolve: ({ state }) => quantileOf(state, 0.5),
    }),
    p95: t.float({
      nullable: true,
      description: '95th percentile of the finite values, within 1 % relative error; null when there is none.',
      resolve: ({ state }) => quantileOf(state, 0.95),
    }),
    sum: t.float({
      nullable: true,
      description: 'Sum of the finite values: windows add up.',
      resolve({ state }) {
        const sum = fromStored(state.sum);
        return state.count > state.nonFinite && Number.isFinite(sum) ? sum : null;
      },
    }),
    first: t.field({
      type: 'MetricValue',
      description: 'First value.',
      resolve: ({ state }) => fromStored(state.first),
    }),
    last: t.field({
      type: 'MetricValue',
      description: 'Last value.',
      resolve: ({ state }) => fromStored(state.last),
    }),
    firstStep: t.field({
      type: 'SafeInt',
      nullable: true,
      description: 'Smallest step in the window; null when no point had one.',
      resolve: ({ state }) => state.firstStep,
    }),
    lastStep: t.field({
      type: 'SafeInt',
      nullable: true,
      description: 'Largest step in the window; null when no point had one.',
      resolve: ({ state }) => state.lastStep,
    }),
    nonFinite: t.field({
      type: 'SafeInt',
      description: 'Number of values that are NaN or infinite.',
      resolve: ({ state }) => state.nonFinite,
    }),
    provisional: t.boolean({
      description: `Indicates the window is not closed yet. A point later than the grace still merges into a closed window, with a higher
\`revision\`, until the attempt ends.`,
      resolve: (window) => !window.closed,
    }),
  }),
});

const MetricWindowConnection = connectionType<Window>('MetricWindow', MetricWindowRef, {
  plural: 'windows',
  noun: 'window',
  description: 'A page of windows.',
  edgeDescription: 'A window and its cursor.',
  pageInfoDescription: 'Position of the page. `endCursor` is a valid `after` of `Subscription.jobMetrics`.',
});

type WindowPage = Page<Window> & { windowSeconds?: number };
builder.objectField(MetricWindowConnection, 'windowSeconds', (t) =>
  t.int({
    description: 'Length of the windows in seconds: which tier answered.',
    resolve: (page: WindowPage) => page.windowSeconds ?? 0,
  }),
);

/**
 * Position in a cursor. A subscription goes on from `change`; a page goes on from `place`, which a
 * cursor of a subscription lacks.
 */
type Position = { change: number; place?: readonly number[] };

const streamName = (jobId: string) => `metric:${jobId}`;

export function encodeWindowCursor(jobId: string, { change, place = [] }: Position): string {
  return encodeCursor(streamName(jobId), [change, ...place]);
}

export function decodeWindowCursor(jobId: string, cursor: string): Position {
  const [change, ...place] = decodeCursor(streamName(jobId), cursor);
  if (!isCount(change) || !place.every(isCount) || (place.length !== 0 && place.length !== 2)) throw cursorInvalid();
  return place.length === 2 ? { change, place } : { change };
}

builder.objectField(MetricRef, 'windows', (t) =>
  t.field({
    type: MetricWindowConnection,
    description: 'Windows, oldest first. `endCursor` is a valid `after` of `Subscription.jobMetrics`.',
    args: {
      windowSeconds: t.arg.int({
        description: "Length of a window; the job's own when null.",
      }),
      since: t.arg({ type: 'DateTime', description: 'From this timestamp on.' }),
      until: t.arg({ type: 'DateTime', description: 'Before this timestamp.' }),
      maxWindows: t.arg.int({ description: 'Pick the finest tier that gives at most so many windows.' }),
      ...pageArgs(maxPage),
    },
    async resolve(metric, args, context): Promise<WindowPage> {
      const { jobId, name } = metric;
      const { db } = context.database;
      const request = readPageArgs(args, maxPage);
      const after = placeIn(jobId, request.after);
      const before = placeIn(jobId, request.before);
      const { job, window: head } = await readJob(db, jobId);
      const range = { name, since: args.since, until: args.until };
      const plan = await planPage(context, job, range, args);
      const { windows, limit } = await listMerged(db, plan, range, { ...request, after, before });
      await context.budget.takeRows(windows.reduce((sum, window) => sum + bytesOf(window), 0));
      const cursor = (row: Window) => encodeWindowCursor(jobId, { change: 0, place: [row.start, row.attempt] });
      const page = toPage(windows, { ...request, limit }, cursor);
      const last = page.edges.at(-1)?.node;
      const end = last ? [last.start, last.attempt] : (after ?? [0, 0]);
      // A subscription with this cursor must also bring the unchanged windows after this page, so
      // `change` stands before the first of them.
      const behind = await changeBefore(db, plan, name, end);
      const endCursor = encodeWindowCursor(jobId, { change: Math.min(head, behind ?? head), place: end });
      return { ...page, endCursor, windowSeconds: plan.seconds };
    },
  }),
);

function bytesOf({ state }: Window): number {
  return windowBytes + bucketBytes * (Object.keys(state.positive).length + Object.keys(state.negative).length);
}

function placeIn(jobId: string, cursor: string | undefined): readonly number[] | undefined {
  if (cursor === undefined) return undefined;
  const { place } = decodeWindowCursor(jobId, cursor);
  if (!place) throw badInput('The cursor comes from a subscription: it has no place in this page.');
  return place;
}

async function planPage(
  { database, config }: Context,
  job: Job,
  range: WindowRange,
  { windowSeconds, maxWindows }: { windowSeconds?: number | null; maxWindows?: number | null },
): Promise<Plan> {
  if (typeof maxWindows !== 'number') return planWindows(database.db, job, windowSeconds ?? null, config);
  if (typeof windowSeconds === 'number') throw badInput('Pass windowSeconds or maxWindows, not both.', ['maxWindows']);
  if (maxWindows < 1) throw badInput(`maxWindows is ${maxWindows}; it is 1 at least.`, ['maxWindows']);
  return planByCount(database.db, job, range, maxWindows, config);
}
