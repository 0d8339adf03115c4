// The flags of `astraml submit`.
import type { Command } from 'commander';
import { type AddCommand, collect } from '../command.ts';
import { usage } from '../failure.ts';
import { jobFields, previewFields, scheduleFields } from '../fields.ts';

import type { SubmitOptions } from './submit.ts';

export function addSubmitCommand(program: Command, add: AddCommand): void {
  add<SubmitOptions>(
    program,
    'submit',
    'submit a job; flags win over the file, the command goes behind --',
    (options) => Object.keys(options.dryRun ? previewFields : options.cron ? scheduleFields : jobFields),
    async () => {
      const { runSubmit } = await import('./submit.ts');
      return (cli, options, operands) => runSubmit(cli, options, commandVector(operands));
    },
  )
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

/** A command only behind `--`, so that a forgotten dash is not run as a command. */
function commandVector(operands: string[]): string[] {
  const at = process.argv.indexOf('--');
  const behind = at < 0 ? 0 : process.argv.length - at - 1;
  if (operands.length === behind) return operands;
  throw usage(
    `unexpected argument "${operands[0] ?? ''}"`,
    'A command to run goes behind --, e.g. -- python train.py.',
  );
}
