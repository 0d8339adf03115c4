// `astraml submit`: a job from a file, flags or both; submitted once however often the network fails, and followed to
// its end with --follow.
import { randomUUID } from 'node:crypto';
import { toInput } from '../../spec/input.ts';
import type { Cli } from '../cli.ts';
import { exitCodeOfState, exitCodes } from '../failure.ts';
import { type JobLine, jobAnswer, type Warning } from '../fields.ts';
import { detachable, detachedMessage, followLog, followState, noteState } from '../jobs/follow.ts';
import { jobName, outcomeLines } from '../jobs/outcome.ts';
import { pick } from '../output.ts';
import { type Problem, problemFragment, refusedBy } from '../problem.ts';
import { runPreview } from './preview.ts';
import { requireSpec } from './spec-file.ts';
import { mergeSpec, type SpecFlags } from './spec-flags.ts';
import { cleanLine, cleanText } from '../text.ts';

export type SubmitOptions = SpecFlags & { idempotencyKey?: string; dryRun?: boolean; follow?: boolean };

type Payload = { __typename: 'SubmitJobPayload'; job: JobLine; replayed: boolean; warnings: Warning[] };

const submitMutation = `mutation($input: SubmitJobInput!) {
  submitJob(input: $input) {
    __typename
    ... on SubmitJobPayload { replayed warnings { code message } job ${jobAnswer} }
    ...Problem
  }
} ${problemFragment}`;

export async function runSubmit(cli: Cli, options: SubmitOptions, command: string[]): Promise<number> {
  const spec = requireSpec(await mergeSpec(cli, options, command));
  if (options.dryRun) return runPreview(cli, spec);
  const input = { spec: toInput(spec), idempotencyKey: options.idempotencyKey ?? `cli-${randomUUID()}` };
  const { submitJob: result } = await cli.request<{ submitJob: Payload | Problem }>(
    submitMutation,
    { input },
    { patient: true },
  );
  if (!('job' in result)) throw refusedBy(result);
  const { job, replayed, warnings } = result;
  for (const warning of warnings) cli.out.warn(`warning: ${cleanText(warning.message)}`);
  if (replayed) cli.out.note('This idempotency key was used before: it is the same job, not a new one.');
  if (!cli.out.json) await cli.out.print(`${job.id} ${jobName(job)} ${job.state}`);
  else if (options.follow) await cli.out.print(jobEvent(cli, job));
  else await cli.out.printJson(job);
  if (options.follow) return followToEnd(cli, job);
  if (!cli.out.json && cli.out.tty) cli.out.note(`follow it: astraml logs ${jobName(job)} -f`);
  return exitCodes.done;
}

/** The log on stdout, changes of state on stderr, then how it ended; as JSON one object a line. */
async function followToEnd(cli: Cli, job: JobLine): Promise<number> {
  const { out } = cli;
  const ended = await detachable(detachedMessage(cli, job), async (signal) => {
    const log = followLog(cli, job.id, {}, signal, async (line) => {
      if (out.json) await out.print(JSON.stringify({ __typename: 'LogLine', ...line }));
      else await out.print(cleanLine(line.text, out.colours));
    });
    const state = followState(cli, job.id, signal, (now) => {
      if (!(now.state in exitCodeOfState) && now.state !== job.state) noteState(cli, now);
    });
    await Promise.all([log, state]);
    const query = `query($id: ID!) { job(id: $id) ${jobAnswer} }`;
    return (await cli.request<{ job: JobLine | null }>(query, { id: job.id }, { signal })).job;
  });
  if (!ended) return exitCodes.notFound;
  if (out.json) await out.print(jobEvent(cli, ended));
  else for (const line of outcomeLines(cli, ended)) await out.print(line);
  return exitCodeOfState[ended.state] ?? exitCodes.unexpected;
}

/** A job among lines: `__typename` tells them apart. */
function jobEvent(cli: Cli, job: JobLine): string {
  return JSON.stringify({ __typename: 'Job', ...pick(job, cli.out.json) });
}
