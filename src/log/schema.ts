// The log in GraphQL: `Job.logs` in pages, `jobLogs` live. Both share cursors, so that a
// subscription goes on where a page ends.
import { channels } from '../bus/bus.ts';
import { builder, type Context, viewerNeutral } from '../graphql/builder.ts';
import { badInput } from '../graphql/node.ts';
import { connectionType, type Page, pageArgs, readPageArgs } from '../graphql/page.ts';
import { type Batch, batchType, streamField } from '../graphql/stream.ts';
import { readJob } from '../job/job.ts';
import { JobRef, requireFollowed } from '../job/schema.ts';
import { isTerminal } from '../job/state.ts';
import type { StreamPositions } from '../live/commit.ts';
import { decodeNumber, encodeCursor } from '../live/cursor.ts';
import type { SharedStream } from '../live/feed.ts';
import { isFiltered, type LogFilter } from './filter.ts';
import type { LogLine, StreamGap } from './log.ts';
import { linesOfNotification } from './notification.ts';
import { bytesPerSearch, type ReadLimits } from './read-limits.ts';
import { lineBytes, type LogReading, readLog, readLogBackward } from './read.ts';

const maxBatchLines = 500;
const maxBatchBytes = 64 * 1024;
/**
 * A page ends after this many characters of text, even below its page size; `endCursor` goes on
 * from there.
 */
const maxPageBytes = 1024 * 1024;
/** Milliseconds that one page may search. */
const searchMs = 2_000;
/**
 * Cost of a page that searches, 512 points: one for each 16 KiB, the most that one line holds, of
 * the 8 MiB that it reads at most.
 */
const searchCost = bytesPerSearch / (16 * 1024);

const LogStreamEnum = builder.enumType('LogStream', {
  description: 'Output stream of a log line.',
  values: {
    STDOUT: { description: 'Standard output of the command.' },
    STDERR: { description: 'Standard error of the command.' },
    SYSTEM: { description: 'A message of the runner or the gateway.' },
  },
});

const GapReasonEnum = builder.enumType('GapReason', {
  description: 'Why log lines or metric points are missing from a stream.',
  values: {
    RETENTION: { description: 'They are past the retention period.' },
    SPOOL_OVERFLOW: { description: "The runner's local spool overflowed while the gateway was unreachable." },
    LOG_LIMIT: { description: "The job exceeded the project's log limit." },
    RESTORED: {
      description:
        "The gateway's database was restored from a backup that does not have them. Points are counted among them.",
    },
    REFUSED: { description: 'The database refused the record, e.g. a line. An alert of the job says why.' },
  },
});

const LogLineRef = builder.objectRef<LogLine>('LogLine').implement({
  ...viewerNeutral,
  description: "One line of a job's log.",
  fields: (t) => ({
    seq: t.expose('seq', {
      type: 'SafeInt',
      description: 'Sequence number, unique and strictly increasing within the job. Use it to drop duplicates.',
    }),
    time: t.field({
      type: 'DateTime',
      description: 'Timestamp of when the runner read the line.',
      resolve: (line) => new Date(line.time),
    }),
    stream: t.expose('stream', { type: LogStreamEnum, description: 'Stream of the line.' }),
    text: t.exposeString('text', {
      description:
        'Text without the line terminator. Progress bars redrawn with carriage returns arrive as their last state only.',
    }),
    attempt: t.exposeInt('attempt', { description: 'Number of the attempt.' }),
    truncated: t.exposeBoolean('truncated', { description: 'Indicates the line was cut at 16 KiB.' }),
  }),
});

const StreamGapRef = builder.objectRef<StreamGap>('StreamGap').implement({
  ...viewerNeutral,
  description: 'Missing lines or points. Streams never skip silently.',
  fields: (t) => ({
    fromSeq: t.expose('fromSeq', { type: 'SafeInt', description: 'First missing sequence number.' }),
    toSeq: t.expose('toSeq', { type: 'SafeInt', description: 'Last missing sequence number.' }),
    reason: t.expose('reason', { type: GapReasonEnum, description: 'Why they are missing.' }),
  }),
});

const LogFilterInput = builder.inputType('LogFilter', {
  description: 'Selects log lines. All given fields must match.',
  fields: (t) => ({
    streams: t.field({ type: [LogStreamEnum], description: 'Of these streams.' }),
    attempt: t.int({ description: 'Of this attempt.' }),
    search: t.string({ description: 'Containing this text, ignoring case and escape sequences.' }),
    since: t.field({ type: 'DateTime', description: 'At or after this timestamp.' }),
    until: t.field({ type: 'DateTime', description: 'Before this timestamp.' }),
  }),
});

const LogLineConnection = connectionType<LogLine>('LogLine', LogLineRef, {
  plural: 'lines',
  noun: 'line',
  description: 'A page of log lines.',
  edgeDescription: 'A log line and its cursor.',
  pageInfoDescription:
    'Position of the page. `endCursor` is a valid `after` of `Subscription.jobLogs`: no line is lost or repeated between the two.',
});
type LogPage = Page<LogLine> & { gaps?: StreamGap[] };
builder.objectField(LogLineConnection, 'gaps', (t) =>
  t.field({
    type: [StreamGapRef],
    description: 'Gaps inside the page; empty when the page is whole.',
    resolve: (page: LogPage) => page.gaps ?? [],
  }),
);

const streamName = (jobId: string) => `log:${jobId}`;

builder.objectField(JobRef, 'logs', (t) =>
  t.field({
    type: LogLineConnection,
    description: `Log of the job, oldest line first. A page ends after 1 MiB of text, one that searches also after 8 MiB that were looked
through or 2 s: it may hold fewer lines than asked for, or none, and \`pageInfo\` says whether and where to go on.`,
    extensions: { weight: searchWeight },
    args: {
      filter: t.arg({ type: LogFilterInput, description: 'Only lines that match.' }),
      ...pageArgs(1_000),
      last: t.arg.int({ description: 'Page size from the end, 1–1000. `last: 100` is the tail.' }),
    },
    async resolve(job, args, { database, budget, config }, info): Promise<LogPage> {
      const request = readPageArgs(args, 1_000);
      const filter = checkFilter(args.filter);
      const stream = streamName(job.id);
      const { line: head } = await readJob(database.db, job.id);
      const after = request.after === undefined ? 0 : decodeNumber(stream, request.after);
      const before = request.before === undefined ? head + 1 : decodeNumber(stream, request.before);
      const limits: ReadLimits = {
        maxLines: request.limit,
        maxBytes: maxPageBytes,
        takeRows: budget.takeRows,
        signal: info.getAbortSignal(),
        searchMs: Math.min(searchMs, config.operationSeconds * 500),
      };
      const reading: LogReading = request.backward
        ? await readLogBackward(database.db, job.id, { ...limits, before, filter })
        : await readLog(database.db, job.id, { ...limits, after, head: Math.min(head, before - 1), filter });
      const lines = reading.lines.filter((line) => line.seq > after);
      const cursor = (seq: number) => encodeCursor(stream, [seq]);
      return {
        edges: lines.map((node) => ({ cursor: cursor(node.seq), node })),
        gaps: reading.gaps.filter((gap) => gap.fromSeq > after),
        hasNextPage: request.backward ? before <= head : reading.more,
        hasPreviousPage: request.backward ? reading.more : after > 0,
        ...(request.backward ? { startCursor: cursor(Math.max(reading.position, after)) } : {}),
        endCursor: cursor(request.backward ? Math.max(before - 1, 0) : Math.max(reading.position, after)),
      };
    },
  }),
);

/**
 * Cost of the filter. `search` and `streams` are tested on each line; the other fields choose whole
 * chunks, which costs nothing more.
 */
function searchWeight(argument: (name: string) => unknown): number {
  const { search, streams } = (argument('filter') ?? {}) as LogFilter;
  return search || streams ? searchCost : 0;
}

function checkFilter(filter: LogFilter | null | undefined): LogFilter {
  if (filter?.search && filter.search.length > 1_000) {
    throw badInput('search takes 1000 characters at most.', ['filter', 'search']);
  }
  return filter ?? {};
}

type LogBatch = Batch<{ lines: LogLine[]; gaps: StreamGap[] }>;

const LogBatchRef = batchType<LogBatch>('LogBatch', {
  description:
    'Consecutive log lines: up to 500 lines, 64 KiB or 100 ms, whichever comes first. The first batch comes at once, even when it is empty: it says that the subscription is live.',
  fields: (t) => ({
    lines: t.expose('lines', { type: [LogLineRef], description: 'The lines, in order.' }),
    gaps: t.expose('gaps', {
      type: [StreamGapRef],
      description: 'Gaps before or between the lines; empty when nothing is missing.',
    }),
  }),
  endCursor: 'Cursor after the last line: the `after` to reconnect with.',
  done: 'Indicates the job is terminal and every line was delivered; the subscription completes after this batch.',
});

streamField('jobLogs', {
  description:
    'Log of a job: first what is already there, then what comes. Completes when the job is terminal and its log is delivered.',
  batch: LogBatchRef,
  args: builder.args((t) => ({
    jobId: t.id({ required: true, description: 'Id of the job.' }),
    filter: t.field({ type: LogFilterInput, description: 'Only lines that match.' }),
  })),
  after: 'Cursor to resume after, from here or from `Job.logs`.',
  last: { max: 10_000, description: 'Without `after`: this many lines before the end, 0–10 000.' },
  async follow({ jobId, filter, after, last }, context) {
    const { line: head } = await requireFollowed(context, jobId);
    const beforeLast = last === null ? 0 : Math.max(0, head - last);
    const start = after === null ? beforeLast : decodeNumber(streamName(jobId), after);
    const shared = logStream(context, jobId, start, checkFilter(filter));
    return { channel: channels.job(jobId), shared };
  },
});

function logStream({ database }: Context, jobId: string, start: number, filter: LogFilter): SharedStream<LogBatch> {
  const toSlice = ({ lines, gaps, position, more }: LogReading, seen: StreamPositions) => {
    const done = !more && seen['end'] === 1;
    const value = { lines, gaps, endCursor: encodeCursor(streamName(jobId), [position]), caughtUp: !more, done };
    const sizeBytes = lines.reduce((sum, { text }) => sum + text.length + lineBytes, lineBytes);
    const empty = lines.length + gaps.length === 0;
    return { value, empty, position, seen, more, done, sizeBytes, time: lines.at(-1)?.time };
  };
  return {
    key: `log:${JSON.stringify(filter)}`,
    start,
    async read(after, to) {
      // The job is read before its lines: once its state is terminal, all its lines lie at or below
      // `head`.
      const { job, line: head } = await readJob(database.db, jobId);
      const limits = { maxLines: maxBatchLines, maxBytes: maxBatchBytes };
      const reading = await readLog(database.db, jobId, { after, head: Math.min(head, to ?? head), filter, ...limits });
      const more = reading.more || reading.position < head;
      return toSlice({ ...reading, more }, { line: head, end: Number(isTerminal(job.state)) });
    },
    fromNotification({ heads: { line, end }, records = [] }, after) {
      if (line === undefined || end !== 0 || line - after > maxBatchLines || isFiltered(filter)) return null;
      const reading = linesOfNotification(records, { after, head: line });
      const slice = reading && toSlice(reading, { line, end });
      return slice && slice.sizeBytes <= maxBatchBytes ? slice : null;
    },
  };
}
