// `jobMetrics`: metric windows, live. A batch holds each window in its newest state, not each
// revision in between, so a slow reader gets fewer messages, not older ones.
import { channels } from '../bus/bus.ts';
import { builder, type Context } from '../graphql/builder.ts';
import { type Batch, batchType, streamField } from '../graphql/stream.ts';
import { type Job, readJob } from '../job/job.ts';
import { requireFollowed } from '../job/schema.ts';
import { isTerminal } from '../job/state.ts';
import type { Reading, SharedStream, StreamSlice } from '../live/feed.ts';
import { listClosedSince, readClosedTo, readLastMerged, readMerged, readMergedChanges, type Window } from './merged.ts';
import { readLastWindows, readWindowChanges, type WindowSelection } from './metric.ts';
import { checkNames } from './schema.ts';
import { keysAt, textOf } from './tier.ts';
import { type Plan, planWindows } from './window-plan.ts';
import { decodeWindowCursor, encodeWindowCursor, MetricWindowRef, windowBytes } from './window-schema.ts';

const maxBatchWindows = 500;
/** Shortest pause between two batches: a window that fills is sent once a second. */
const minIntervalMs = 1_000;

type MetricWindowBatch = Batch<{ windows: Window[] }>;

const MetricWindowBatchRef = batchType<MetricWindowBatch>('MetricWindowBatch', {
  description:
    'Metric windows that were opened, changed or closed. A slow reader gets the newest revision of each window, never a queue of old ones.',
  fields: (t) => ({
    windows: t.expose('windows', { type: [MetricWindowRef], description: 'The windows, oldest first.' }),
  }),
  endCursor: 'Cursor after the batch: the `after` to reconnect with.',
  done: 'Indicates the job is terminal and every window is final; the subscription completes after this batch.',
});

streamField('jobMetrics', {
  description: `Metrics of a job, aggregated per window: each window while it fills, at most once a second, and once more when it closes.
A window that is sent again has the same \`id\` and a higher \`revision\`.`,
  batch: MetricWindowBatchRef,
  args: builder.args((t) => ({
    jobId: t.id({ required: true, description: 'Id of the job.' }),
    names: t.stringList({
      description: 'Only metrics with these names; a trailing `*` matches a prefix (`train/*`).',
    }),
    windowSeconds: t.int({
      description:
        "Length of the windows in seconds; the job's own (30 by default) when null. A multiple of it, or a tier.",
    }),
    closedOnly: t.boolean({ defaultValue: false, description: 'Sends each window only when it closes.' }),
  })),
  after: 'Cursor to resume after, from here or from `Metric.windows`.',
  last: { max: 1_000, description: 'Without `after`: this many windows of each metric before the end, 0–1000.' },
  async follow({ jobId, names, windowSeconds, closedOnly, after, last }, context) {
    const { job } = await requireFollowed(context, jobId);
    const { database, config, feeds } = context;
    const start = { change: after === null ? 0 : decodeWindowCursor(jobId, after).change, last };
    const selection = { names: checkNames(names), closedOnly: closedOnly ?? false };
    const seconds = windowSeconds ?? null;
    const plan = await feeds.readFirst(`windows:${jobId}:${seconds}`, () =>
      planWindows(database.db, job, seconds, config),
    );
    const options = { channel: channels.job(jobId), minIntervalMs };
    return plan.seconds === plan.base
      ? { ...options, shared: ownStream(context, jobId, start, selection) }
      : { ...options, read: mergedReader(context, plan, start, selection) };
  },
});

type Start = { change: number; last: number | null };

/**
 * Makes a slice of the stream. `head` is the number of the job's last window change when the
 * windows were read.
 */
function toSlice(
  job: Job,
  head: number,
  { windows, position, more }: { windows: Window[]; position: number; more: boolean },
): StreamSlice<MetricWindowBatch> {
  const ended = isTerminal(job.state);
  const done = ended && !more;
  const value = { windows, endCursor: encodeWindowCursor(job.id, { change: position }), caughtUp: !more, done };
  const seen = { window: head, end: Number(ended) };
  return { value, empty: windows.length === 0, position, seen, more, done, sizeBytes: windows.length * windowBytes };
}

/**
 * Stream of the windows in the job's own length. Its ring holds one batch; a slower follower reads
 * the newest revisions from the database.
 */
function ownStream(
  { database: { db } }: Context,
  jobId: string,
  { change, last }: Start,
  selection: WindowSelection,
): SharedStream<MetricWindowBatch> {
  return {
    key: `windows:${JSON.stringify(selection)}`,
    start: change,
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
      const range = { after, head: Math.min(head, to ?? head), limit: maxBatchWindows + 1 };
      const changed = await readWindowChanges(db, jobId, range, selection);
      const windows = changed.slice(0, maxBatchWindows);
      const position =
        changed.length > windows.length ? (windows.at(-1)?.change ?? after) : Math.max(after, range.head);
      return toSlice(job, head, { windows: inOrder(windows), position, more: position < head });
    },
  };
}

/**
 * Sorts windows by their start. The order of their changes only decides which windows a batch gets.
 */
function inOrder(windows: Window[]): Window[] {
  return windows.sort((a, b) => a.start - b.start || (a.name < b.name ? -1 : 1) || a.attempt - b.attempt);
}

/**
 * Reads windows longer than the job's own: first those with a changed part, then those that closed
 * because time passed. `sent` holds the revisions of the last batch, since the next page of a
 * backlog may bring an unchanged window again. Each follower reads for itself, because its windows
 * depend on what it was sent and when.
 */
function mergedReader(
  { database: { db } }: Context,
  plan: Plan,
  start: Start,
  selection: WindowSelection,
): (first: boolean) => Promise<Reading<MetricWindowBatch>> {
  let position = start.change;
  let closedTo: number | null = null;
  let sent = new Map<string, number>();
  return async (first) => {
    const last = first ? start.last : null;
    const { job, window: head } = await readJob(db, plan.jobId);
    closedTo ??= await readClosedTo(db, plan.jobId, start.change > 0 ? start.change : undefined);
    const to = await readClosedTo(db, plan.jobId);
    const changes = await readMergedChanges(db, plan, { after: position, head, limit: maxBatchWindows }, selection);
    const more = last === null && changes.more;
    const closed =
      more || last !== null ? [] : await listClosedSince(db, plan, { from: closedTo, to }, position, selection);
    const keys = keysAt(plan.seconds, [...changes.keys, ...closed]);
    const merged = last === null ? await readMerged(db, plan, keys) : await readLastMerged(db, plan, last, selection);
    if (!more) closedTo = to;
    const windows = merged.filter(
      (window) => sent.get(textOf(window)) !== window.revision && (window.closed || !selection.closedOnly),
    );
    sent = new Map(merged.map((window) => [textOf(window), window.revision]));
    position = more ? changes.position : head;
    const { value, empty, done, seen } = toSlice(job, head, { windows, position, more });
    return { value: first || done || !empty ? value : null, seen, more, done };
  };
}
