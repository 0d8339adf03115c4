// `astraml metrics`: the newest, smallest and largest value of each metric of a job; with --watch
// its windows while they fill and close.
import type { Cli } from '../cli.ts';
import { exitCodes } from '../failure.ts';
import { select } from '../fields.ts';
import { cell, type Output, pick } from '../output.ts';
import { formatNumber } from '../text.ts';
import { type JobLine, jobLineFields, type Metric, metricFields, type MetricValue, windowFields } from './fields.ts';
import { findJob } from './find.ts';
import { detachable, detachedMessage } from './follow.ts';
import { jobName } from './outcome.ts';

type MetricsOptions = { name?: string[]; watch?: boolean; header?: boolean };

type Window = {
  id: string;
  name: string;
  start: string;
  end: string;
  count: number;
  mean: number | null;
  min: number | null;
  max: number | null;
  last: MetricValue;
  lastStep: number | null;
  provisional: boolean;
};
type WindowBatch = { windows: Window[]; endCursor: string; done: boolean };

const watchQuery = `subscription($jobId: ID!, $after: String, $last: Int, $names: [String!]) {
  jobMetrics(jobId: $jobId, after: $after, last: $last, names: $names) { windows ${select(windowFields)} endCursor done }
}`;

const pageSize = 1_000;

export async function runMetrics(cli: Cli, options: MetricsOptions, [name = '@last']: string[]): Promise<number> {
  const job = await findJob<JobLine>(cli, name, select(jobLineFields));
  if (options.watch) await watch(cli, job, options);
  else await print(cli, job, options);
  return exitCodes.done;
}

async function print(cli: Cli, job: JobLine, options: MetricsOptions): Promise<void> {
  const query = `query($id: ID!, $names: [String!], $first: Int!, $after: String) {
    job(id: $id) { metrics(names: $names, first: $first, after: $after) ${select(metricFields)} }
  }`;
  const metrics: Metric[] = [];
  for (let isWhole = false; !isWhole;) {
    const variables = { id: job.id, names: options.name, first: pageSize, after: metrics.at(-1)?.name };
    const page = (await cli.request<{ job: { metrics: Metric[] } | null }>(query, variables)).job?.metrics ?? [];
    metrics.push(...page);
    isWhole = page.length < pageSize;
  }
  if (cli.out.json) return cli.out.printJson(metrics);
  if (metrics.length === 0) return cli.out.note(`${jobName(job)} has reported no such metric yet.`);
  await cli.out.table(['NAME', 'LAST', 'MIN', 'MAX', 'STEP'], metricRows(cli.out, metrics), options);
}

/** Returns rows of name, last, min, max and step; numbers are rounded on a terminal only. */
export function metricRows(out: Output, metrics: Metric[]): string[][] {
  return metrics.map(({ name, last, min, max }) => [
    cell(name),
    ...[last.value, min?.value ?? null, max?.value ?? null].map((value) => shownNumber(out, value)),
    last.step === null ? '' : String(last.step),
  ]);
}

/**
 * Prints the newest window of each metric, then each change. With --json each event has the cursor
 * from which to resume.
 */
async function watch(cli: Cli, job: JobLine, { name: names, header }: MetricsOptions): Promise<void> {
  const { out } = cli;
  const columns = ['START', 'NAME', 'COUNT', 'MEAN', 'MIN', 'MAX', 'LAST', 'STEP', 'WINDOW'];
  if (!out.json && (header ?? out.tty)) await out.print(out.tty ? watchLine(columns) : columns.join('\t'));
  await detachable(detachedMessage(cli, job), async (signal) => {
    let cursor: string | null = null;
    const variables = { jobId: job.id, last: 1, names };
    for await (const batch of cli.follow<WindowBatch>(watchQuery, variables, { signal })) {
      const newest = batch.windows.at(-1);
      for (const window of batch.windows) {
        const at: string | null = window === newest ? batch.endCursor : cursor;
        if (out.json) await out.print(JSON.stringify(pick({ cursor: at, ...window }, out.json)));
        else await out.print(out.tty ? watchLine(windowRow(out, window)) : windowRow(out, window).join('\t'));
      }
      cursor = batch.endCursor;
    }
  });
}

function windowRow(out: Output, window: Window): string[] {
  const { start, name, count, mean, min, max, last, lastStep, provisional } = window;
  return [
    out.tty ? start.slice(11, 19) : start,
    cell(name),
    String(count),
    ...[mean, min, max, last].map((value) => shownNumber(out, value)),
    lastStep === null ? '' : String(lastStep),
    provisional ? 'filling' : 'closed',
  ];
}

/** Formats one row. Rows come one by one, so the columns have fixed, usual widths. */
function watchLine(cells: string[]): string {
  const widths = [8, 24, 6, 9, 9, 9, 9, 8, 7];
  return cells
    .map((text, index) => text.padEnd(widths[index] ?? 0))
    .join('  ')
    .trimEnd();
}

function shownNumber(out: Output, value: MetricValue | null): string {
  if (value === null) return '';
  return out.tty ? formatNumber(value) : String(value);
}
