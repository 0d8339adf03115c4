// The commands about jobs that exist, with their flags.
import type { Command } from 'commander';
import type { CancelOptions } from './cancel.ts';
import { type AddCommand, collect } from '../command.ts';
import { jobFields, jobPageFields, lineFields, metricFields, valueFields, windowFields } from '../fields.ts';
import type { JobsOptions } from './jobs.ts';
import type { LogsOptions } from './logs.ts';
import type { MetricsOptions } from './metrics.ts';
import type { ShowOptions } from './show.ts';

const jobArgument = 'number (42, p-demo/42), id (job_…) or @last';
const headerFlag = ['--header', 'print the header also where no terminal reads'] as const;

export function addJobCommands(program: Command, add: AddCommand): void {
  addJobs(program, add);
  add<LogsOptions>(
    program,
    'logs',
    'print the log of a job',
    () => ['cursor', ...Object.keys(lineFields)],
    async () => {
      return (await import('./logs.ts')).runLogs;
    },
  )
    .argument('[job]', `${jobArgument} (default: @last)`)
    .option('-f, --follow', 'go on with the lines to come, until the job ends')
    .option('-n, --lines <count>', 'lines before the end (default: 200)')
    .option('--stream <name>', 'only stdout, stderr or system (repeat)', collect)
    .option('--attempt <number>', 'only of this attempt')
    .option('--grep <text>', 'only lines that contain the text')
    .option('-t, --timestamps', 'begin each line with its time')
    .option('--after <cursor>', 'go on behind this cursor of --json')
    .option('--exit-status', 'exit as the job ended');
  add<MetricsOptions>(
    program,
    'metrics',
    'show the metrics of a job',
    ({ watch }) => (watch ? ['cursor', ...Object.keys(windowFields)] : Object.keys(metricFields)),
    async () => (await import('./metrics.ts')).runMetrics,
  )
    .argument('[job]', `${jobArgument} (default: @last)`)
    .option('--name <name>', 'only this metric; train/* is a prefix (repeat)', collect)
    .option('-w, --watch', 'print windows as they fill and close')
    .option(...headerFlag);
  add<CancelOptions>(
    program,
    'cancel',
    'ask jobs to stop',
    () => Object.keys(jobFields),
    async () => {
      return (await import('./cancel.ts')).runCancel;
    },
  )
    .argument('<jobs...>', jobArgument)
    .option('--reason <text>', 'reason shown to people')
    .option('--grace <duration>', 'time between the request and the kill, e.g. 30s')
    .option('--wait', 'wait until they have stopped');
}

function addJobs(program: Command, add: AddCommand): void {
  const jobs = add<JobsOptions>(
    program,
    'jobs',
    'list jobs, newest first',
    () => Object.keys(jobFields),
    async () => {
      return (await import('./jobs.ts')).runJobs;
    },
  )
    .allowExcessArguments() // a mistyped subcommand is told so, with a suggestion
    .option('--state <state>', 'only in this state, e.g. running (repeat)', collect)
    .option('--model <name>', 'only with this model')
    .option('--tag <tag>', 'only with this tag (repeat)', collect)
    .option('-n, --limit <count>', 'how many', '20')
    .option('-a, --all', 'all of them')
    .option(...headerFlag);
  add<ShowOptions>(
    jobs,
    'show',
    'show a job on one page',
    ({ spec, config }) => (spec ? [] : Object.keys(config ? valueFields : jobPageFields)),
    async () => (await import('./show.ts')).runShow,
  )
    .argument('<job>', jobArgument)
    .option('--spec', 'print the spec as YAML, to be submitted again')
    .option('--config', 'print every value with its source')
    .option(...headerFlag);
}
