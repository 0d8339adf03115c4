// `astraml jobs edit`: changes name, tags and notes of a job, and its priority while it waits.
import type { Cli } from '../cli.ts';
import { exitCodes, usage } from '../failure.ts';
import { cell } from '../output.ts';
import { type Problem, problemFragment, refusedBy } from '../problem.ts';
import { jobAnswer, type JobLine } from './fields.ts';
import { findJob } from './find.ts';
import { jobName } from './outcome.ts';

type EditOptions = { name?: string; tag?: string[]; notes?: string; priority?: string };

type Edited = JobLine & { tags: string[]; notes: string | null; priority: number };

const editMutation = `mutation($input: UpdateJobInput!) {
  updateJob(input: $input) { __typename ... on JobPayload { job ${jobAnswer} } ...Problem }
} ${problemFragment}`;

export async function runJobsEdit(cli: Cli, options: EditOptions, [name = '']: string[]): Promise<number> {
  const changes = {
    name: options.name,
    tags: options.tag?.filter((tag) => tag !== ''),
    notes: options.notes,
    priority: options.priority === undefined ? undefined : toPriority(options.priority),
  };
  const fields = Object.entries(changes).flatMap(([field, value]) => (value === undefined ? [] : [field]));
  if (fields.length === 0) throw usage('jobs edit: say at least one of --name, --tag, --notes, --priority.');
  const { id } = await findJob<{ id: string }>(cli, name, '{ id }');
  type Answer = { updateJob: { job: Edited } | Problem };
  const { updateJob: result } = await cli.request<Answer>(editMutation, { input: { id, ...changes } });
  if (!('job' in result)) throw refusedBy(result);
  const { job } = result;
  if (cli.out.json) {
    await cli.out.printJson(job);
    return exitCodes.done;
  }
  const values: Record<string, string> = {
    name: cell(job.name),
    tags: job.tags.map(cell).join(','),
    notes: cell(job.notes),
    priority: String(job.priority),
  };
  const rows = [['job', jobName(job)], ...fields.map((field) => [field, values[field] ?? ''])];
  await cli.out.table(['', ''], rows, { header: false });
  return exitCodes.done;
}

function toPriority(text: string): number {
  if (/^[+-]?\d{1,3}$/.test(text)) return Number(text);
  throw usage(`--priority takes a whole number from -100 to 100, got "${text}".`);
}
