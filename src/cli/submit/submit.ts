// `astraml submit`: a job from a file, flags or both; submitted once however often the network fails, and followed to
// its end with --follow.
import { randomUUID } from 'node:crypto';
import { toInput } from '../../spec/input.ts';
import type { Cli } from '../cli.ts';
import type { Spec } from '../../spec/shape.ts';
import { exitCodeOfState, exitCodes, usage } from '../failure.ts';
import { type JobLine, jobAnswer, type Warning } from '../fields.ts';
import { detachable, detachedMessage, followLog, followState, noteState } from '../jobs/follow.ts';
import { jobName, outcomeLines } from '../jobs/outcome.ts';
import { pick } from '../output.ts';
import { type Problem, problemFragment, refusedBy } from '../problem.ts';
import { sendSchedule } from '../schedules/create.ts';
import { missingCron, type ScheduleFlags, type ScheduleInput, splitSchedule } from '../schedules/input.ts';
import { runPreview } from './preview.ts';
import { requireSpec } from './spec-file.ts';
import { mergeSpec, type SpecFlags } from './spec-flags.ts';
import { cleanLine, cleanText } from '../text.ts';

export type SubmitOptions = SpecFlags &
  Pick<ScheduleFlags, 'cron' | 'tz'> & {
    idempotencyKey?: string;
    expectedSpecHash?: string;
    dryRun?: boolean;
    follow?: boolean;
  };

type Payload = { __typename: 'SubmitJobPayload'; job: JobLine; replayed: boolean; warnings: Warning[] };

const submitMutation = `mutation($input: SubmitJobInput!) {
  submitJob(input: $input) {
    __typename
    ... on SubmitJobPayload { replayed warnings { code message } job ${jobAnswer} }
    ...Problem
  }
} ${problemFragment}`;

export async function runSubmit(cli: Cli, options: SubmitOptions, command: string[]): Promise<number> {
  const { template, schedule, issues } = splitSchedule(await mergeSpec(cli, options, command), options);
  const spec = requireSpec(template, [...issues, ...(schedule ? missingCron(schedule) : [])]);
  if (options.dryRun) return runPreview(cli, spec);
  if (schedule) return submitSchedule(cli, spec, schedule, options);
  const input = {
    spec: toInput(spec),
    idempotencyKey: options.idempotencyKey ?? `cli-${randomUUID()}`,
    expectedSpecHash: options.expectedSpecHash,
  };
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

/** The spec says when: what is created is a schedule, and the jobs are its own. */
function submitSchedule(cli: Cli, spec: Spec, schedule: ScheduleInput, options: SubmitOptions): Promise<number> {
  const { follow, expectedSpecHash, idempotencyKey } = options;
  const flag = follow ? '--follow' : expectedSpecHash ? '--expected-spec-hash' : null;
  if (flag) throw usage(`${flag} is about one job, and this creates a schedule.`, 'Leave it out, or remove schedule.');
  return sendSchedule(cli, { spec, schedule, idempotencyKey });
}

/** The log on stdout, changes of state on stderr, then how it ended; as JSON one object a line. */
export async function followToEnd(cli: Cli, job: JobLine): Promise<number> {
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
