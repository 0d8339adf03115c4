// The commands about existing jobs, with their flags.
import type { Command } from 'commander';
import type { AddCommand } from '../command.ts';
import { collect, headerFlag } from '../flags.ts';
import { valueFields } from '../values.ts';
import { jobFields, jobPageFields, lineFields, metricFields, windowFields } from './fields.ts';

const jobArgument = 'number (42, p-demo/42), id (job_…) or @last';

export function addJobCommands(program: Command, add: AddCommand): void {
  addJobs(program, add);
  const cursor = { cursor: '' };
  const logs = async () => (await import('./logs.ts')).runLogs;
  add(program, 'logs', 'print the log of a job', { ...cursor, ...lineFields }, logs)
    .argument('[job]', `${jobArgument} (default: @last)`)
    .option('-f, --follow', 'go on with the lines to come, until the job ends')
    .option('-n, --lines <count>', 'lines before the end (default: 200)')
    .option('--stream <name>', 'only stdout, stderr or system (repeat)', collect)
    .option('--attempt <number>', 'only of this attempt')
    .option('--grep <text>', 'only lines that contain the text')
    .option('-t, --timestamps', 'begin each line with its time')
    .option('--after <cursor>', 'go on behind this cursor of --json')
    .option('--exit-status', 'exit as the job ended');
  add(
    program,
    'metrics',
    'show the metrics of a job',
    ({ watch }) => (watch ? { ...cursor, ...windowFields } : metricFields),
    async () => (await import('./metrics.ts')).runMetrics,
  )
    .argument('[job]', `${jobArgument} (default: @last)`)
    .option('--name <name>', 'only this metric; train/* is a prefix (repeat)', collect)
    .option('-w, --watch', 'print windows as they fill and close')
    .option(...headerFlag);
  add(program, 'cancel', 'ask jobs to stop', jobFields, async () => (await import('./cancel.ts')).runCancel)
    .argument('<jobs...>', jobArgument)
    .option('--reason <text>', 'reason shown to people')
    .option('--grace <duration>', 'time between the request and the kill, e.g. 30s')
    .option('--wait', 'wait until they have stopped');
  const retry = async () => (await import('./retry.ts')).runRetry;
  add(program, 'retry', 'submit a finished job again, with the values it had', jobFields, retry)
    .argument('<job>', jobArgument)
    .option('--set <k=v>', 'change a hyperparameter, or resources.<k> (repeat)', collect)
    .option('--gpus <n>', 'GPUs')
    .option('--idempotency-key <key>', 'retry once under this key, however often it is said')
    .option('-w, --follow', 'print its log until it ends, and exit as it did');
  const wait = async () => (await import('./wait.ts')).runWait;
  add(program, 'wait', 'wait until jobs have ended, and exit as they did', jobFields, wait)
    .argument('<jobs...>', jobArgument)
    .option('--timeout <duration>', 'give up after, e.g. 2h: exit code 101, the jobs go on')
    .option('--any', 'until one of them has ended');
}

function addJobs(program: Command, add: AddCommand): void {
  const list = async () => (await import('./jobs.ts')).runJobs;
  const jobs = add(program, 'jobs', 'list jobs, newest first', jobFields, list)
    .allowExcessArguments() // `runJobs` answers a mistyped subcommand with a suggestion
    .option('--state <state>', 'only in this state, e.g. running (repeat)', collect)
    .option('--model <name>', 'only with this model')
    .option('--tag <tag>', 'only with this tag (repeat)', collect)
    .option('-n, --limit <count>', 'how many', '20')
    .option('-a, --all', 'all of them')
    .option(...headerFlag);
  add(
    jobs,
    'show',
    'show a job on one page',
    ({ spec, config }) => (spec ? {} : config ? valueFields : jobPageFields),
    async () => (await import('./show.ts')).runShow,
  )
    .argument('<job>', jobArgument)
    .option('--spec', 'print the spec as YAML, to be submitted again')
    .option('--config', 'print every value with its source')
    .option(...headerFlag);
  const edit = async () => (await import('./edit.ts')).runJobsEdit;
  add(jobs, 'edit', 'change the name, tags, notes or priority of a job', jobFields, edit)
    .argument('<job>', jobArgument)
    .option('--name <text>', 'name')
    .option('--tag <tag>', "label; replaces all of them (repeat; '' for none)", collect)
    .option('--notes <text>', "notes in Markdown; '' removes them")
    .option('--priority <n>', 'from -100 to 100, larger runs first; only while it is queued');
}
