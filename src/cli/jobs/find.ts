// Finds a job by its name on the command line: its id, its number (`42`, `p-demo/42`), or `@last`
// for the newest of the project.
import type { Cli } from '../cli.ts';
import { exitCodes, Failure, usage } from '../failure.ts';
import { jobAnswer, type JobLine } from './fields.ts';

const newest = '@last';

/**
 * Returns the fields in `selection` of the job that `name` names. Throws a Failure when there is
 * none.
 */
export async function findJob<Job>(cli: Cli, name: string, selection: string): Promise<Job> {
  const where = parseName(cli, name);
  const job = await ask<Job>(cli, where, selection);
  if (job) return job;
  if ('last' in where) {
    const hint = `Submit one: astraml submit -p ${where.last} --model … --dataset …`;
    throw new Failure(exitCodes.notFound, `Project ${where.last} has no job yet, or you may not see it.`, hint);
  }
  throw new Failure(
    exitCodes.notFound,
    `Job ${name} does not exist, or you may not see it.`,
    'astraml jobs lists them.',
  );
}

type Where = { id: string } | { project: string; number: number } | { last: string };

function parseName(cli: Cli, name: string): Where {
  if (name === newest) return { last: cli.requireProject() };
  if (/^job_[0-9a-z]+$/i.test(name)) return { id: name };
  const [, project, digits] = /^(?:(p-[a-z0-9-]+)\/)?#?(\d{1,9})$/.exec(name) ?? [];
  if (digits) return { project: project ?? cli.requireProject(), number: Number(digits) };
  throw usage(`"${name}" names no job.`, 'Name it by number (42 or p-demo/42), by id (job_…), or as @last.');
}

type Found<Job> = { job?: Job | null; project?: { job?: Job | null; jobs?: { nodes: Job[] } } | null };

async function ask<Job>(cli: Cli, where: Where, selection: string): Promise<Job | null | undefined> {
  if ('id' in where) {
    const answer = await cli.request<Found<Job>>(`query($id: ID!) { job(id: $id) ${selection} }`, where);
    return answer.job;
  }
  if ('last' in where) {
    const query = `query($project: ID!) { project(id: $project) { jobs(first: 1) { nodes ${selection} } } }`;
    const answer = await cli.request<Found<Job>>(query, { project: where.last });
    return answer.project?.jobs?.nodes[0];
  }
  const query = `query($project: ID!, $number: Int!) { project(id: $project) { job(number: $number) ${selection} } }`;
  const answer = await cli.request<Found<Job>>(query, where);
  return answer.project?.job;
}

/** Reads the present state of the jobs, in their order, without jobs that do not exist any more. */
export async function readJobs(cli: Cli, jobs: { id: string }[], signal: AbortSignal): Promise<JobLine[]> {
  const query = `query($id: ID!) { job(id: $id) ${jobAnswer} }`;
  const read = await Promise.all(jobs.map(({ id }) => cli.request<{ job: JobLine | null }>(query, { id }, { signal })));
  return read.flatMap(({ job }) => job ?? []);
}
