// Follows a job: its log and its changes of state. Ctrl-C detaches and leaves the job running.
import type { Cli } from '../cli.ts';
import { Detached, exitCodeOfState, exitCodes } from '../failure.ts';
import { select } from '../fields.ts';
import { cell, pick, stateGlyph } from '../output.ts';
import { cleanLine } from '../text.ts';
import { type JobLine, jobLineFields, lineFields, type LogLine } from './fields.ts';
import { readJobs } from './find.ts';
import { jobName, outcomeLines, shortName } from './outcome.ts';

/**
 * Runs `work` to its end. Ctrl-C aborts the signal that `work` gets, and ends the command with
 * `message`.
 */
export async function detachable<T>(message: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  let detach = () => {};
  const detached = new Promise<never>((_, reject) => {
    detach = () => {
      reject(new Detached(message));
      abort.abort();
    };
  });
  process.once('SIGINT', detach);
  try {
    return await Promise.race([work(abort.signal), detached]);
  } finally {
    process.off('SIGINT', detach);
    abort.abort();
  }
}

/** Returns the message for Ctrl-C while a job is followed. */
export function detachedMessage(cli: Cli, job: Pick<JobLine, 'number' | 'project'>): string {
  return `\nDetached: ${jobName(job)} goes on. Follow it again: astraml logs ${shortName(cli, job)} -f`;
}

export type LogRange = { after?: string | null; filter?: object };
/**
 * A line with the cursor from which to resume. A batch has cursors only at its ends, so within a
 * batch the cursor lies before the line: lines may repeat, and their `seq` tells which.
 */
export type FollowedLine = LogLine & { cursor: string | null };

type LogBatch = {
  lines: LogLine[];
  gaps: { fromSeq: number; toSeq: number; reason: string }[];
  endCursor: string;
  done: boolean;
};

const logQuery = `subscription($jobId: ID!, $after: String, $filter: LogFilter) {
  jobLogs(jobId: $jobId, after: $after, filter: $filter) {
    lines ${select(lineFields)} gaps { fromSeq toSeq reason } endCursor done
  }
}`;

/** Calls `onLine` for each line of the job until its log ends. */
export async function followLog(
  cli: Cli,
  jobId: string,
  range: LogRange,
  signal: AbortSignal,
  onLine: (line: FollowedLine) => Promise<void>,
): Promise<void> {
  const stream = cli.follow<LogBatch>(logQuery, { jobId, ...range }, { signal });
  let cursor = range.after ?? null;
  for await (const batch of stream) {
    for (const gap of batch.gaps) warnOfGap(cli, gap);
    const lastSeq = batch.lines.at(-1)?.seq;
    for (const line of batch.lines) await onLine({ cursor: line.seq === lastSeq ? batch.endCursor : cursor, ...line });
    cursor = batch.endCursor;
  }
}

export function warnOfGap(cli: Cli, { fromSeq, toSeq, reason }: LogBatch['gaps'][number]): void {
  cli.out.warn(`warning: lines ${fromSeq}–${toSeq} are missing (${reason}).`);
}

const updateQuery = `subscription($jobId: ID!) {
  jobUpdated(jobId: $jobId) { done job ${select(jobLineFields)} }
}`;

/** Resolves with the ended job. Calls `onChange` for every state on the way. */
export async function followState(
  cli: Cli,
  jobId: string,
  signal: AbortSignal,
  onChange: (job: JobLine) => void,
): Promise<JobLine | null> {
  let last: JobLine | null = null;
  const stream = cli.follow<{ done: boolean; job: JobLine }>(
    updateQuery,
    { jobId },
    { signal, onConnection: () => {} },
  );
  for await (const { job } of stream) {
    const changed = job.state !== last?.state || job.stateReason?.code !== last.stateReason?.code;
    last = job;
    if (changed) onChange(job);
  }
  return last;
}

/** Prints the state of a job and its reason to stderr. */
export function noteState(cli: Cli, job: JobLine): void {
  const why = job.stateReason ? `  ${cell(job.stateReason.message)}` : '';
  cli.out.note(`${stateGlyph(cli.out, job.state)} ${jobName(job)} ${job.state}${why}`);
}

/**
 * Prints the log to stdout, changes of state to stderr, and then the outcome; with --json one
 * object per line.
 */
export async function followToEnd(cli: Cli, job: JobLine): Promise<number> {
  const { out } = cli;
  const [ended] = await detachable(detachedMessage(cli, job), async (signal) => {
    const log = followLog(cli, job.id, {}, signal, async (line) => {
      if (out.json) await out.print(JSON.stringify({ __typename: 'LogLine', ...line }));
      else await out.print(cleanLine(line.text, out.colours));
    });
    const state = followState(cli, job.id, signal, (now) => {
      if (!(now.state in exitCodeOfState) && now.state !== job.state) noteState(cli, now);
    });
    await Promise.all([log, state]);
    return readJobs(cli, [job], signal);
  });
  if (!ended) return exitCodes.notFound;
  if (out.json) await out.print(jobEvent(cli, ended));
  else for (const line of outcomeLines(cli, ended)) await out.print(line);
  return exitCodeOfState[ended.state] ?? exitCodes.unexpected;
}

/** Returns a job as a line of JSON; its `__typename` tells it from log lines. */
export function jobEvent(cli: Cli, job: JobLine): string {
  return JSON.stringify({ __typename: 'Job', ...pick(job, cli.out.json) });
}
