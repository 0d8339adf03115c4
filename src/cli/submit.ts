// `astraml submit`: submits a job from a file, flags or both, once however often the network fails;
// --follow follows it to its end. --dry-run submits nothing: it prints each value with its source,
// or why the job would be refused.
import type { Command } from 'commander';
import type { Cli } from './cli.ts';
import type { AddCommand } from './command.ts';
import { exitCodes, usage } from './failure.ts';
import { type Fields, leafFields, select } from './fields.ts';
import { collect } from './flags.ts';
import { jobAnswer, jobFields, type JobLine } from './jobs/fields.ts';
import { followToEnd, jobEvent } from './jobs/follow.ts';
import { jobName } from './jobs/outcome.ts';
import { cell } from './output.ts';
import { printWarnings, type Problem, problemFragment, refusedBy, type Warning } from './problem.ts';
import { sendSchedule } from './schedules/create.ts';
import { scheduleFields } from './schedules/fields.ts';
import { missingCron, type ScheduleFlags, type ScheduleInput, splitSchedule } from './schedules/input.ts';
import { requireSpec } from './spec-file.ts';
import { mergeSpec, type SpecFlags } from './spec-flags.ts';
import { cleanText } from './text.ts';
import { printValues, type Value, valueFields } from './values.ts';

const previewFields: Fields = {
  defaultsVersion: '',
  resolved: select(valueFields),
  ...leafFields('command specHash matchingRunners'),
  warnings: '{ code message path }',
  errors: '{ ...Problem }',
};

type SubmitOptions = SpecFlags &
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

export function addSubmitCommand(program: Command, add: AddCommand): void {
  const fields = ({ dryRun, cron }: SubmitOptions) => (dryRun ? previewFields : cron ? scheduleFields : jobFields);
  add(program, 'submit', 'submit a job; flags win over the file, the command goes behind --', fields, () => runSubmit)
    .argument('[command...]', 'behind --: the command to run')
    .usage('[options] [-- command …]')
    .optionsGroup('The job:')
    .option('-f, --file <file>', 'job spec, JSON or YAML; - is stdin')
    .option('--model <name>', 'model to train, e.g. bert-base')
    .option('--dataset <uri>', 'dataset to train on, e.g. s3://bucket/dataset')
    .option('--name <name>', 'name of the job')
    .option('--tag <tag>', 'label of the job (repeat)', collect)
    .option('--notes <text>', 'notes in Markdown')
    .option('--env <name=value>', 'environment variable of the command (repeat)', collect)
    .option('--secret <name>', 'secret of the project, as the variable of that name (repeat)', collect)
    .option('--defaults-version <version>', 'defaults to resolve with, e.g. v2.1')
    .optionsGroup('Hyperparameters:')
    .option('--batch-size <n>', 'samples per step and device')
    .option('--epochs <n>', 'passes over the dataset')
    .option('--lr <x>', 'initial learning rate, e.g. 3e-5')
    .option('--lr-scheduler <name>', 'learning-rate schedule, e.g. cosine')
    .option('--early-stopping-patience <n>', 'evaluations without improvement before training stops')
    .option('--no-early-stopping', 'train to the end')
    .option('--gradient-accumulation-steps <n>', 'steps whose gradients are added up')
    .option('--set <key=value>', 'any hyperparameter, or a dotted path of the spec (repeat)', collect)
    .optionsGroup('Where and when:')
    .option('--gpus <n>', 'number of GPUs; 0 runs on CPU')
    .option('--gpu-model <text>', 'required GPU model, e.g. H100')
    .option('--label <label>', 'label the runner must have (repeat)', collect)
    .option('--priority <n>', '-100 to 100; larger runs first')
    .option('--timeout <duration>', 'longest run, all attempts together, e.g. 2h')
    .option('--queue-timeout <duration>', 'longest wait for a runner, e.g. 1h')
    .option('--start-timeout <duration>', 'longest way from a runner to the running command, e.g. 10m')
    .option('--retries <n>', 'attempts after a failed one, 0 to 10')
    .option('--on-cut <what>', 'when its runner loses the gateway: continue or stop')
    .option('--cron <expression>', 'create a schedule instead, e.g. "0 * * * *"')
    .option('--tz <zone>', 'time zone of --cron, e.g. Europe/Berlin (default: UTC)')
    .optionsGroup('Submitting:')
    .option('--idempotency-key <key>', 'submit once under this key, however often it is said')
    .option('--expected-spec-hash <hash>', 'submit what --dry-run showed, or nothing')
    .option('--dry-run', 'show what would run, and from where each value comes')
    .option('-w, --follow', 'follow the job to its end and mirror its outcome');
}

async function runSubmit(cli: Cli, options: SubmitOptions, operands: string[]): Promise<number> {
  const { template, schedule, issues } = splitSchedule(await mergeSpec(cli, options, commandOf(operands)), options);
  const spec = await requireSpec(template, [...issues, ...(schedule ? missingCron(schedule) : [])]);
  if (options.dryRun) return runPreview(cli, spec);
  if (schedule) return submitSchedule(cli, spec, schedule, options);
  const input = {
    spec,
    idempotencyKey: options.idempotencyKey ?? `cli-${crypto.randomUUID()}`,
    expectedSpecHash: options.expectedSpecHash,
  };
  const { submitJob: result } = await cli.request<{ submitJob: Payload | Problem }>(
    submitMutation,
    { input },
    { patient: true },
  );
  if (!('job' in result)) throw refusedBy(result);
  const { job, replayed, warnings } = result;
  printWarnings(cli, warnings);
  if (replayed) cli.out.note('This idempotency key was used before: it is the same job, not a new one.');
  if (!cli.out.json) await cli.out.print(`${job.id} ${jobName(job)} ${job.state}`);
  else if (options.follow) await cli.out.print(jobEvent(cli, job));
  else await cli.out.printJson(job);
  if (options.follow) return followToEnd(cli, job);
  if (!cli.out.json && cli.out.tty) cli.out.note(`follow it: astraml logs ${jobName(job)} -f`);
  return exitCodes.done;
}

/** Creates a schedule instead of a job, because the spec or a flag gives a cron expression. */
function submitSchedule(cli: Cli, spec: object, schedule: ScheduleInput, options: SubmitOptions): Promise<number> {
  const { follow, expectedSpecHash, idempotencyKey } = options;
  const flag = follow ? '--follow' : expectedSpecHash ? '--expected-spec-hash' : null;
  if (flag) throw usage(`${flag} is about one job, and this creates a schedule.`, 'Leave it out, or remove schedule.');
  return sendSchedule(cli, { spec, schedule, idempotencyKey });
}

/**
 * Returns the command of the job, which stands after `--`, so that a flag without its dash is not
 * taken for a command.
 */
function commandOf(operands: string[]): string[] {
  const dashes = process.argv.indexOf('--');
  const behind = dashes < 0 ? 0 : process.argv.length - dashes - 1;
  if (operands.length === behind) return operands;
  throw usage(
    `unexpected argument "${operands[0] ?? ''}"`,
    'A command to run goes behind --, e.g. -- python train.py.',
  );
}

type Preview = {
  defaultsVersion: string | null;
  resolved: Value[];
  command: string[] | null;
  specHash: string | null;
  matchingRunners: number;
  warnings: Warning[];
  errors: Problem[];
};

/** Prints the preview. With errors, it prints all but the first to stderr and throws the first. */
async function runPreview(cli: Cli, spec: object): Promise<number> {
  const query = `query($spec: JobSpecInput!) { previewJob(spec: $spec) ${select(previewFields)} } ${problemFragment}`;
  const { previewJob: preview } = await cli.request<{ previewJob: Preview }>(query, { spec });
  if (cli.out.json) await cli.out.printJson(preview);
  else await printValues(cli, preview.resolved);
  printWarnings(cli, preview.warnings);
  const [first, ...others] = preview.errors.map(refusedBy);
  for (const other of others) cli.out.warn(`error: ${cleanText(other.message)}`);
  if (first) throw first;
  const { defaultsVersion, matchingRunners, command, specHash } = preview;
  cli.out.note(`Nothing was submitted. It would run: ${cell((command ?? []).join(' '))}`);
  cli.out.note(`Spec hash ${specHash ?? ''}: --expected-spec-hash submits exactly this.`);
  cli.out.note(`Defaults ${defaultsVersion ?? ''}; ${matchingRunners} runner(s) could take it now.`);
  return exitCodes.done;
}
