// `astraml retry`: submits a finished job again with its own values, except those that flags
// change.
import { toInput } from '../../spec/input.ts';
import type { Cli } from '../cli.ts';
import { exitCodes, usage } from '../failure.ts';
import { toCount } from '../flags.ts';
import { type Problem, problemFragment, refusedBy } from '../problem.ts';
import { applySet, type Json } from '../spec-file.ts';
import { jobAnswer, type JobLine } from './fields.ts';
import { findJob } from './find.ts';
import { followToEnd } from './follow.ts';
import { jobName } from './outcome.ts';

type RetryOptions = { set?: string[]; gpus?: string; idempotencyKey?: string; follow?: boolean };

const retryMutation = `mutation($input: RetryJobInput!) {
  retryJob(input: $input) { __typename ... on RetryJobPayload { replayed job ${jobAnswer} } ...Problem }
} ${problemFragment}`;

export async function runRetry(cli: Cli, options: RetryOptions, [name = '']: string[]): Promise<number> {
  const changes = changesOf(options);
  const { id } = await findJob<{ id: string }>(cli, name, '{ id }');
  const input = { id, ...changes, idempotencyKey: options.idempotencyKey ?? `cli-${crypto.randomUUID()}` };
  type Answer = { retryJob: { job: JobLine; replayed: boolean } | Problem };
  const { retryJob: result } = await cli.request<Answer>(retryMutation, { input }, { patient: true });
  if (!('job' in result)) throw refusedBy(result);
  const { job, replayed } = result;
  if (replayed) cli.out.note('This idempotency key was used before: it is the same job, not a new one.');
  if (!cli.out.json) await cli.out.print(`${job.id} ${jobName(job)} ${job.state}`);
  else if (!options.follow) await cli.out.printJson(job);
  if (options.follow) return followToEnd(cli, job);
  return exitCodes.done;
}

/**
 * Returns the changes of `--set` and `--gpus` as the API takes them: hyperparameters and resources
 * only.
 */
function changesOf({ set = [], gpus }: RetryOptions): Json {
  const spec: Json = {};
  for (const assignment of set) applySet(spec, assignment);
  if (gpus !== undefined) {
    const others = spec['resources'];
    spec['resources'] = { ...(typeof others === 'object' ? others : {}), gpus: toCount('--gpus', gpus, { min: 0 }) };
  }
  const other = Object.keys(spec).find((key) => key !== 'hyperparams' && key !== 'resources');
  if (other === undefined) return toInput(spec);
  const hint = 'For anything else: astraml jobs show <job> --spec > job.yaml, edit it, astraml submit -f job.yaml.';
  throw usage(`A retry changes hyperparameters and resources, not ${other}.`, hint);
}
