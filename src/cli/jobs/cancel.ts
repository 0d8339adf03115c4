// `astraml cancel`: asks jobs to stop; with --wait it waits until they have ended.
import type { Cli } from '../cli.ts';
import { exitCodes, explain } from '../failure.ts';
import { toSeconds } from '../flags.ts';
import { type Problem, problemFragment, refusedBy } from '../problem.ts';
import { jobAnswer, type JobLine } from './fields.ts';
import { findJob, readJobs } from './find.ts';
import { detachable, followState, noteState } from './follow.ts';
import { stateLine } from './outcome.ts';

type CancelOptions = { reason?: string; grace?: string; wait?: boolean };

const cancelMutation = `mutation($input: CancelJobInput!) {
  cancelJob(input: $input) { __typename ... on JobPayload { job ${jobAnswer} } ...Problem }
} ${problemFragment}`;

/** Cancels each job that can be cancelled. The exit code is that of the first failure. */
export async function runCancel(cli: Cli, options: CancelOptions, names: string[]): Promise<number> {
  const gracePeriodSeconds = options.grace === undefined ? undefined : toSeconds('--grace', options.grace);
  const cancelled: JobLine[] = [];
  let exitCode: number = exitCodes.done;
  for (const name of names) {
    try {
      const { id } = await findJob<{ id: string }>(cli, name, '{ id }');
      cancelled.push(await cancel(cli, { id, reason: options.reason, gracePeriodSeconds }));
    } catch (error) {
      if (names.length === 1) throw error;
      const failure = explain(error, cli.globals.debug === true);
      cli.out.warn(`${name}: ${failure.text}`);
      exitCode ||= failure.exitCode;
    }
  }
  const jobs = options.wait ? await waitForAll(cli, cancelled) : cancelled;
  if (cli.out.json) await cli.out.printJson(jobs);
  else for (const job of jobs) await cli.out.print(stateLine(cli, job));
  return exitCode;
}

async function cancel(cli: Cli, input: object): Promise<JobLine> {
  const { cancelJob: result } = await cli.request<{ cancelJob: { job: JobLine } | Problem }>(cancelMutation, { input });
  if ('job' in result) return result.job;
  throw refusedBy(result);
}

async function waitForAll(cli: Cli, jobs: JobLine[]): Promise<JobLine[]> {
  const message = '\nDetached: the cancelled jobs go on stopping.';
  return detachable(message, async (signal) => {
    const ends = await Promise.all(jobs.map((job) => followState(cli, job.id, signal, (now) => noteState(cli, now))));
    if (!cli.out.json) return ends.filter((job) => job !== null);
    return readJobs(cli, jobs, signal);
  });
}
