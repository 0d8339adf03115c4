// `astraml jobs`: the newest jobs of a project, or of all projects when none is named.
import { closest } from '../../errors.ts';
import type { Variables } from '../../client/client.ts';
import type { Cli } from '../cli.ts';
import { exitCodes, Failure, usage } from '../failure.ts';
import { jobAnswer, jobFields, type JobLine, type Metric, select } from '../fields.ts';
import { jobName } from './outcome.ts';
import { cell, stateCell } from '../output.ts';
import { formatAge, formatNumber } from '../text.ts';

export type JobsOptions = {
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
type Answer = { project?: { jobs: Page } | null; jobs?: Page };
type Page = { nodes: ListedJob[]; pageInfo: { hasNextPage: boolean; endCursor: string | null } };

const pageSize = 100;
const states = ['QUEUED', 'STARTING', 'RUNNING', 'CANCELLING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT'];
/** What scripts call their loss, best first. */
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
  const answer = cli.out.json ? jobAnswer : select({ ...jobFields, metrics: losses });
  const list = `jobs(first: $first, after: $after, filter: $filter) { nodes ${answer} pageInfo { hasNextPage endCursor } }`;
  const query = project
    ? `query($project: ID!, $first: Int!, $after: String, $filter: JobFilter) { project(id: $project) { ${list} } }`
    : `query($first: Int!, $after: String, $filter: JobFilter) { ${list} }`;
  const jobs: ListedJob[] = [];
  let after: string | null = null;
  do {
    const first = Math.min(pageSize, limit - jobs.length);
    const variables: Variables = { project: project ?? undefined, first, after, filter };
    const found: Answer = await cli.request<Answer>(query, variables);
    const page: Page | undefined = project ? found.project?.jobs : found.jobs;
    if (!page) throw new Failure(exitCodes.notFound, `Project ${project} does not exist, or you may not see it.`);
    jobs.push(...page.nodes);
    after = page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null;
  } while (after !== null && jobs.length < limit);
  return jobs;
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
  const value = lossNames.map((name) => byName.get(name)).find((found) => found !== undefined);
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

/** A whole number from 1 on, of a flag. */
export function toCount(flag: string, text: string, { min = 1, max = Infinity } = {}): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= min && count <= max) return count;
  const range = max === Infinity ? `from ${min} on` : `from ${min} to ${max}`;
  throw usage(`${flag} takes a whole number ${range}, got "${text}".`);
}
