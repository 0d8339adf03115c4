// `astraml jobs`: the newest jobs of a project, or of all projects when none is named.
import { closest } from '../../closest.ts';
import type { Cli } from '../cli.ts';
import { exitCodes, Failure, usage } from '../failure.ts';
import { select } from '../fields.ts';
import { toCount } from '../flags.ts';
import { cell, stateCell } from '../output.ts';
import { type Page, pageFields, readAll } from '../pages.ts';
import { formatAge, formatNumber } from '../text.ts';
import { jobAnswer, jobFields, type JobLine, type Metric } from './fields.ts';
import { jobName } from './outcome.ts';

type JobsOptions = {
  state?: string[];
  model?: string;
  tag?: string[];
  limit: string;
  all?: boolean;
  header?: boolean;
};

type ListedJob = JobLine & {
  progress: { fraction: number | null; step: number | null; epoch: number | null } | null;
  metrics: Metric[];
  resources: { gpus: number };
};
type JobList = { jobs: Page<ListedJob> };

const states = ['QUEUED', 'STARTING', 'RUNNING', 'CANCELLING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT'];
/** Names under which scripts report their loss, in order of preference. */
const lossNames = ['train/loss', 'loss', 'eval/loss'];

export async function runJobs(cli: Cli, options: JobsOptions, operands: string[]): Promise<number> {
  const [unknown] = operands;
  if (unknown) {
    const near = closest(unknown, ['show', 'edit']);
    throw usage(`unknown command '${unknown}' of jobs`, near ? `Did you mean "${near}"?` : 'See astraml jobs --help.');
  }
  const limit = options.all ? Infinity : toCount('-n', options.limit);
  const filter = { states: options.state?.flatMap(toStates), model: options.model, tags: options.tag };
  const jobs = await listJobs(cli, filter, limit);
  if (cli.out.json) await cli.out.printJson(jobs);
  else await printJobs(cli, jobs, options);
  return exitCodes.done;
}

async function listJobs(cli: Cli, filter: object, limit: number): Promise<ListedJob[]> {
  const { project } = cli;
  const losses = `(names: ${JSON.stringify(lossNames)}) { name last { value } }`;
  const fields = cli.out.json ? jobAnswer : select({ ...jobFields, metrics: losses });
  const selection = `jobs(first: $first, after: $after, filter: $filter) { nodes ${fields} ${pageFields} }`;
  const query = project
    ? `query($project: ID!, $first: Int!, $after: String, $filter: JobFilter) { project(id: $project) { ${selection} } }`
    : `query($first: Int!, $after: String, $filter: JobFilter) { ${selection} }`;
  return readAll(async (page) => {
    const variables = { project: project ?? undefined, filter, ...page };
    const answer = await cli.request<JobList & { project?: JobList | null }>(query, variables);
    const list = project ? answer.project : answer;
    if (list) return list.jobs;
    throw new Failure(exitCodes.notFound, `Project ${project} does not exist, or you may not see it.`);
  }, limit);
}

async function printJobs(cli: Cli, jobs: ListedJob[], { header }: JobsOptions): Promise<void> {
  const { out, project } = cli;
  const now = Date.now();
  const rows = jobs.map((job) => [
    out.tty && project ? String(job.number) : jobName(job),
    cell(job.name),
    stateCell(out, job.state),
    progressOf(job, out.tty),
    lossOf(job, out.tty),
    String(job.resources.gpus),
    out.tty ? formatAge(job.createdAt, now) : job.createdAt,
  ]);
  if (jobs.length === 0) out.note('No job.');
  else await out.table(['NUMBER', 'NAME', 'STATE', 'PROGRESS', 'LOSS', 'GPUS', 'AGE'], rows, { header });
}

function progressOf({ progress }: ListedJob, short: boolean): string {
  if (!progress) return short ? '–' : '';
  if (progress.fraction !== null) return short ? `${Math.floor(progress.fraction * 100)}%` : String(progress.fraction);
  return progress.step === null ? '' : `step ${progress.step}`;
}

function lossOf({ metrics }: ListedJob, short: boolean): string {
  const byName = new Map(metrics.map((metric) => [metric.name, metric.last.value]));
  const value = lossNames.map((name) => byName.get(name)).find((loss) => loss !== undefined);
  if (value === undefined) return short ? '–' : '';
  return short ? formatNumber(value) : String(value);
}

function toStates(text: string): string[] {
  return text.split(',').map((name) => {
    const state = name.trim().toUpperCase().replaceAll('-', '_');
    if (states.includes(state)) return state;
    const near = closest(state, states);
    throw usage(
      `--state: "${name}" is no state of a job.`,
      near ? `Did you mean "${near.toLowerCase()}"?` : `Known: ${states.join(', ').toLowerCase()}.`,
    );
  });
}
