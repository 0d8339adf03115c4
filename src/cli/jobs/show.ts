// `astraml jobs show`: prints one job, its spec as YAML, or every value with its source.
import type { Cli } from '../cli.ts';
import { exitCodes } from '../failure.ts';
import { select } from '../fields.ts';
import { cell, stateCell } from '../output.ts';
import { cleanLine, cleanText, formatAge, formatDuration } from '../text.ts';
import { printValues, type Value } from '../values.ts';
import { type JobLine, jobPageFields, lineFields, type LogLine, type Metric } from './fields.ts';
import { findJob } from './find.ts';
import { metricRows } from './metrics.ts';
import { jobName, outcomeLines } from './outcome.ts';

type ShowOptions = { spec?: boolean; config?: boolean; header?: boolean };

type Attempt = {
  number: number;
  state: string;
  exitCode: number | null;
  signal: string | null;
  startedAt: string | null;
  finishedAt: string | null;
  runner: { name: string } | null;
  reason: { message: string } | null;
};
type JobPage = Omit<JobLine, 'attempts'> & {
  attempts: Attempt[];
  isTerminal: boolean;
  model: string;
  dataset: string;
  command: string[];
  resources: { gpus: number; gpuModel: string | null };
  tags: string[];
  notes: string | null;
  submittedBy: { name: string } | null;
  defaultsVersion: string;
  metrics: Metric[];
  resolved: Value[];
  spec: object;
  logs: { nodes: LogLine[] };
};

export async function runShow(cli: Cli, options: ShowOptions, [name = '']: string[]): Promise<number> {
  const logs = `last: 10) { nodes ${select(lineFields)} }`;
  const job = await findJob<JobPage>(cli, name, select({ ...jobPageFields, [`logs(${logs}`]: '' }));
  if (options.spec) await printSpec(cli, job.spec);
  else if (options.config && cli.out.json) await cli.out.printJson(job.resolved);
  else if (options.config) await printValues(cli, job.resolved, options);
  else if (cli.out.json) await cli.out.printJson(job);
  else await printPage(cli, job);
  return exitCodes.done;
}

async function printSpec(cli: Cli, spec: object): Promise<void> {
  if (cli.out.json) return cli.out.print(JSON.stringify(spec, null, cli.out.tty ? 2 : 0));
  const { stringify } = await import('yaml');
  await cli.out.print(cleanYaml(stringify(spec)));
}

function cleanYaml(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => cleanLine(line, false))
    .join('\n');
}

async function printPage(cli: Cli, job: JobPage): Promise<void> {
  const { out } = cli;
  const { stateReason: reason } = job;
  const outcome = out.tty && job.isTerminal ? outcomeLines(cli, job) : [];
  for (const line of outcome) await out.print(line);
  const isReasonShown = outcome.length > 1;
  const rows = [
    ['job', `${jobName(job)} ${cell(job.name)}`],
    ['id', job.id],
    ['state', stateCell(out, job.state)],
    ...(reason && !isReasonShown ? [['why', cell(reason.message)]] : []),
    ...(reason?.hint && !isReasonShown ? [['hint', cell(reason.hint)]] : []),
    ['model', cell(job.model)],
    ['dataset', cell(job.dataset)],
    ['command', cell(job.command.join(' '))],
    ['gpus', [job.resources.gpus, job.resources.gpuModel ?? ''].join(' ').trim()],
    ['defaults', job.defaultsVersion],
    ...(job.tags.length > 0 ? [['tags', cell(job.tags.join(', '))]] : []),
    ...(job.notes ? [['notes', cell(job.notes)]] : []),
    ['submitted', `${shownTime(cli, job.createdAt)}${job.submittedBy ? ` by ${cell(job.submittedBy.name)}` : ''}`],
  ];
  await out.table(['', ''], rows, { header: false });
  await printAttempts(cli, job.attempts);
  if (job.metrics.length > 0) {
    await section(cli, 'METRICS');
    await out.table(['NAME', 'LAST', 'MIN', 'MAX', 'STEP'], metricRows(out, job.metrics), { header: false });
  }
  if (job.logs.nodes.length > 0) await section(cli, 'LOG');
  for (const { text } of job.logs.nodes) await out.print(cleanLine(text, out.colours));
}

async function printAttempts(cli: Cli, attempts: Attempt[]): Promise<void> {
  if (attempts.length === 0) return;
  await section(cli, 'ATTEMPTS');
  const rows = attempts.map((attempt) => [
    String(attempt.number),
    stateCell(cli.out, attempt.state),
    attempt.signal ?? (attempt.exitCode === null ? '' : `exit ${attempt.exitCode}`),
    attempt.startedAt && attempt.finishedAt
      ? formatDuration(Date.parse(attempt.finishedAt) - Date.parse(attempt.startedAt))
      : '',
    cell(attempt.runner?.name),
    cell(attempt.reason?.message),
  ]);
  await cli.out.table(['', '', '', '', '', ''], rows, { header: false });
}

async function section(cli: Cli, title: string): Promise<void> {
  await cli.out.print('');
  await cli.out.print(cli.out.paint('bold', title));
}

function shownTime(cli: Cli, time: string): string {
  return cli.out.tty ? `${formatAge(cleanText(time), Date.now())} ago` : time;
}
