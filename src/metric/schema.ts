// How people ask for metrics: names and summaries, windows in pages, and windows live. A page's cursor holds a place in
// the windows of its metric and a change number: pages go on from the place, subscriptions from the change.
import { channels } from '../bus/bus.ts';
import { asOfNow, builder, type Context, loadExisting, viewerNeutral } from '../graphql/builder.ts';
import { badInput, NodeInterface, registerNode } from '../graphql/node.ts';
import { connectionType, listOf, type Page, pageArgs, readPageArgs, toPage } from '../graphql/page.ts';
import { getJob, type Job, loadJobs, readJob } from '../job/job.ts';
import { JobRef, requireFollowed } from '../job/schema.ts';
import { isTerminal } from '../job/state.ts';
import { cursorInvalid, decodeCursor, encodeCursor, isCount } from '../live/cursor.ts';
import type { Reading, SharedStream, StreamSlice } from '../live/feed.ts';
import { MetricGoal } from '../spec/schema.ts';
import {
  countMetrics,
  getMetric,
  goalOf,
  listMetrics,
  type Metric,
  readLastWindows,
  readWindowChanges,
  type WindowSelection,
} from './metric.ts';
import type { StoredPoint } from './table.ts';
import { keysAt, textOf } from './tier.ts';
import {
  changeBefore,
  listClosedSince,
  listMerged,
  type Plan,
  planByCount,
  planWindows,
  readClosedTo,
  readLastMerged,
  readMerged,
  readMergedChanges,
  type Window,
} from './merged.ts';
import { fromStored, meanOf, quantileOf } from './window.ts';

const maxBatchWindows = 500;
const maxLast = 1_000;
const maxMetrics = 1_000;
/** A window that fills is sent at most so often. */
const minIntervalMs = 1_000;
/** About what a window takes in memory, and each bucket of it, and a metric. */
const [windowBytes, bucketBytes, metricBytes] = [1_000, 12, 1_000];

function metricId(jobId: string, name: string): string {
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
      return listOf(metrics.map(withId)) as MetricNode[]; // either is a list to graphql-js
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
 * Metrics that a page is weighed with when `first` is not given, as any list. With the 1,000 that it may hold an ordinary
 * `metrics { windows(first: 500) { nodes { mean } } }` would be refused; what is more than usual is bounded by its bytes.
 */
const usualMetrics = 20;

/** How many metrics a page is weighed with: as many as are named, when none of them is a prefix. */
function metricsAsked(argument: (name: string) => unknown): number {
  const [first, names] = [argument('first'), argument('names')];
  const isExact = Array.isArray(names) && names.every((name) => typeof name === 'string' && !name.endsWith('*'));
  const most = typeof first === 'number' ? Math.min(Math.max(first, 0), maxMetrics) : usualMetrics;
  return isExact ? Math.min(most, names.length) : most;
}

function checkNames(names: string[] | null | undefined, argument = 'names'): string[] | null {
  if (!names) return null;
  if (names.length > 100 || names.some((name) => name.length > 251 || name.includes('\0'))) {
    throw badInput(`${argument} takes at most 100 names of metrics, each of at most 250 characters.`, [argument]);
  }
  return names;
}

const MetricWindowRef = builder.objectRef<Window>('MetricWindow').implement({
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

/** A cursor's position: the change that a subscription goes on from, then the place that a page goes on from, if any. */
type Position = { change: number; place?: readonly number[] };

const streamName = (jobId: string) => `metric:${jobId}`;

function toCursor(jobId: string, { change, place = [] }: Position): string {
  return encodeCursor(streamName(jobId), [change, ...place]);
}

function fromCursor(jobId: string, cursor: string): Position {
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
      ...pageArgs(1_000),
    },
    async resolve(metric, args, context): Promise<WindowPage> {
      const { jobId, name } = metric;
      const { db } = context.database;
      const request = readPageArgs(args, maxLast);
      const after = placeIn(jobId, request.after);
      const before = placeIn(jobId, request.before);
      const { job, window: head } = await readJob(db, jobId);
      const range = { name, since: args.since, until: args.until };
      const plan = await planPage(context, job, range, args);
      const { windows, limit } = await listMerged(db, plan, range, { ...request, after, before });
      await context.budget.takeRows(windows.reduce((sum, window) => sum + bytesOf(window), 0));
      const cursor = (row: Window) => toCursor(jobId, { change: 0, place: [row.start, row.attempt] });
      const page = toPage(windows, { ...request, limit }, cursor);
      const last = page.edges.at(-1)?.node;
      const end = last ? [last.start, last.attempt] : (after ?? [0, 0]);
      // A subscription from here must also bring what lies behind this page and has not changed since.
      const behind = await changeBefore(db, plan, name, end);
      const endCursor = toCursor(jobId, { change: Math.min(head, behind ?? head), place: end });
      return { ...page, endCursor, windowSeconds: plan.seconds };
    },
  }),
);

function bytesOf({ state }: Window): number {
  return windowBytes + bucketBytes * (Object.keys(state.positive).length + Object.keys(state.negative).length);
}

function placeIn(jobId: string, cursor: string | undefined): readonly number[] | undefined {
  if (cursor === undefined) return undefined;
  const { place } = fromCursor(jobId, cursor);
  if (!place) throw badInput('The cursor comes from a subscription: it has no place in this page.');
  return place;
}

async function planPage(
  { database, config }: Context,
  job: Job,
  range: { name: string; since?: Date | null; until?: Date | null },
  { windowSeconds, maxWindows }: { windowSeconds?: number | null; maxWindows?: number | null },
): Promise<Plan> {
  if (typeof maxWindows !== 'number') return planWindows(database.db, job, windowSeconds ?? null, config);
  if (typeof windowSeconds === 'number') throw badInput('Pass windowSeconds or maxWindows, not both.', ['maxWindows']);
  if (maxWindows < 1) throw badInput(`maxWindows is ${maxWindows}; it is 1 at least.`, ['maxWindows']);
  return planByCount(database.db, job, range, maxWindows, config);
}

type MetricWindowBatch = { windows: Window[]; endCursor: string; caughtUp: boolean; done: boolean };

const MetricWindowBatchRef = builder.objectRef<MetricWindowBatch>('MetricWindowBatch').implement({
  ...viewerNeutral,
  description:
    'Metric windows that were opened, changed or closed. A slow reader gets the newest revision of each window, never a queue of old ones.',
  fields: (t) => ({
    windows: t.expose('windows', { type: [MetricWindowRef], description: 'The windows, oldest first.' }),
    endCursor: t.exposeString('endCursor', {
      description: 'Cursor after the batch: the `after` to reconnect with.',
    }),
    caughtUp: t.exposeBoolean('caughtUp', {
      description: 'Indicates the backlog is delivered and what follows is live.',
    }),
    done: t.exposeBoolean('done', {
      description:
        'Indicates the job is terminal and every window is final; the subscription completes after this batch.',
    }),
  }),
});

builder.subscriptionField('jobMetrics', (t) =>
  t.field({
    ...viewerNeutral,
    type: MetricWindowBatchRef,
    description: `Metrics of a job, aggregated per window: each window while it fills, at most once a second, and once more when it closes.
A window that is sent again has the same \`id\` and a higher \`revision\`.`,
    args: {
      jobId: t.arg.id({ required: true, description: 'Id of the job.' }),
      names: t.arg.stringList({
        description: 'Only metrics with these names; a trailing `*` matches a prefix (`train/*`).',
      }),
      windowSeconds: t.arg.int({
        description:
          "Length of the windows in seconds; the job's own (30 by default) when null. A multiple of it, or a tier.",
      }),
      closedOnly: t.arg.boolean({ defaultValue: false, description: 'Sends each window only when it closes.' }),
      after: t.arg.string({ description: 'Cursor to resume after, from here or from `Metric.windows`.' }),
      last: t.arg.int({ description: 'Without `after`: this many windows of each metric before the end, 0–1000.' }),
    },
    async subscribe(_, { jobId, names, windowSeconds, closedOnly, after, last }, context) {
      const { job } = await requireFollowed(context, jobId);
      if (typeof after === 'string' && typeof last === 'number')
        throw badInput('Pass after or last, not both.', ['last']);
      if (typeof last === 'number' && (last < 0 || last > maxLast)) {
        throw badInput(`last is ${last}; it goes from 0 to ${maxLast}.`, ['last']);
      }
      const start = typeof after === 'string' ? fromCursor(jobId, after).change : 0;
      const selection = { names: checkNames(names), closedOnly: closedOnly ?? false };
      const { database, config, feeds } = context;
      const seconds = windowSeconds ?? null;
      const plan = await feeds.readFirst(`windows:${jobId}:${seconds}`, () =>
        planWindows(database.db, job, seconds, config),
      );
      const from = { start, last: last ?? null };
      const reading =
        plan.seconds === plan.base
          ? { shared: ownStream(context, jobId, from, selection) }
          : { read: wideReader(context, plan, from, selection) };
      return context.feeds.follow<MetricWindowBatch>({ channel: channels.job(jobId), ...reading, minIntervalMs });
    },
    resolve: asOfNow,
  }),
);

type From = { start: number; last: number | null };
type Found = { windows: Window[]; position: number; more: boolean };

/** What was found, as a part of the stream; `head` is the last change when the caller looked. */
function toSlice(job: Job, head: number, { windows, position, more }: Found): StreamSlice<MetricWindowBatch> {
  const ended = isTerminal(job.state);
  const done = ended && !more;
  const value = { windows, endCursor: toCursor(job.id, { change: position }), caughtUp: !more, done };
  const seen = { window: head, end: Number(ended) };
  return { value, empty: windows.length === 0, position, seen, more, done, sizeBytes: windows.length * windowBytes };
}

/** The job's own windows. Its ring holds one batch: who is later gets the newest revisions, not the old ones between. */
function ownStream(
  { database: { db } }: Context,
  jobId: string,
  { start, last }: From,
  selection: WindowSelection,
): SharedStream<MetricWindowBatch> {
  // Oldest first within the batch; the order of changes only decides what belongs to it.
  const inOrder = (windows: Window[]) =>
    windows.sort((a, b) => a.start - b.start || (a.name < b.name ? -1 : 1) || a.attempt - b.attempt);
  return {
    key: `windows:${JSON.stringify(selection)}`,
    start,
    ringBytes: 0,
    open:
      last === null
        ? undefined
        : {
            key: `last ${last}`,
            async read() {
              const { job, window: head } = await readJob(db, jobId);
              const windows = inOrder(await readLastWindows(db, jobId, head, last, selection));
              return toSlice(job, head, { windows, position: head, more: false });
            },
          },
    async read(after, to) {
      const { job, window: head } = await readJob(db, jobId);
      const limited = { after, head: Math.min(head, to ?? head), limit: maxBatchWindows + 1 };
      const found = await readWindowChanges(db, jobId, limited, selection);
      const windows = found.slice(0, maxBatchWindows);
      const position =
        found.length > windows.length ? (windows.at(-1)?.change ?? after) : Math.max(after, limited.head);
      return toSlice(job, head, { windows: inOrder(windows), position, more: position < head });
    },
  };
}

/**
 * Reads longer windows: those with a changed part, and when all of these are read, those that closed by the mere course
 * of time. `sent` holds the revisions of the last batch: pages of a backlog may touch a window again that is the same.
 * Each follower reads for itself: what it is sent next depends on what it was sent and when, not on a position alone, so two
 * who are at one change may need different windows.
 */
function wideReader(
  { database: { db } }: Context,
  plan: Plan,
  { start, last: lastWindows }: From,
  selection: WindowSelection,
): (first: boolean) => Promise<Reading<MetricWindowBatch>> {
  let position = start;
  let closedTo: number | null = null;
  let sent = new Map<string, number>();
  return async (first) => {
    const last = first ? lastWindows : null;
    const { job, window: head } = await readJob(db, plan.jobId);
    closedTo ??= await readClosedTo(db, plan.jobId, start > 0 ? start : undefined);
    const to = await readClosedTo(db, plan.jobId);
    const changes = await readMergedChanges(db, plan, { after: position, head, limit: maxBatchWindows }, selection);
    const more = last === null && changes.more;
    const lately =
      more || last !== null ? [] : await listClosedSince(db, plan, { from: closedTo, to }, position, selection);
    const keys = keysAt(plan.seconds, [...changes.keys, ...lately]);
    const found = last === null ? await readMerged(db, plan, keys) : await readLastMerged(db, plan, last, selection);
    if (!more) closedTo = to;
    const windows = found.filter(
      (window) => sent.get(textOf(window)) !== window.revision && (window.closed || !selection.closedOnly),
    );
    sent = new Map(found.map((window) => [textOf(window), window.revision]));
    position = more ? changes.position : head;
    const { value, empty, done, seen } = toSlice(job, head, { windows, position, more });
    return { value: first || done || !empty ? value : null, seen, more, done };
  };
}
