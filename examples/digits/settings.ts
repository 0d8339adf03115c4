// What to train: the resolved job spec that a runner hands over, or the defaults outside a job, and the command line.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type AugmentationStep, readAugmentation } from './augment.ts';
import { type EarlyStopping, readEarlyStopping } from './early-stopping.ts';
import { type Fields, readFields, readJson, readNumber, Refusal } from './input.ts';
import { requireSchedule } from './schedule.ts';

export const USAGE = `node examples/digits/train.ts [--at-least-seconds N] [--samples N] [--report-every N]

  --at-least-seconds N  rest between the steps so that the whole run lasts at least about N seconds
  --samples N           train on N digits only (default: all 8000)
  --report-every N      report the training loss every N steps (default: about every 0.4 seconds)`;

export type Settings = {
  model: string | undefined;
  dataset: string | undefined;
  gpus: number;
  batchSize: number;
  lr: number;
  epochs: number;
  earlyStopping: EarlyStopping | null;
  scheduler: string;
  accumulation: number;
  seed: number;
  augmentation: AugmentationStep[];
  /** Hyperparameters of the job that this trainer has no use for. */
  unused: string[];
  outputDir: string | undefined;
  stopFile: string | undefined;
  atLeastSeconds: number;
  samples: number | undefined;
  reportEvery: number | undefined;
};

/**
 * The spec in the file `ASTRAML_CONFIG` comes first; single variables stand in for what it lacks.
 *
 * @throws Refusal for a value of the wrong kind, an unknown flag, schedule, metric or augmentation operation.
 */
export function readSettings(args: string[], env: NodeJS.ProcessEnv): Settings {
  const flags = readFlags(args);
  const config = readFields(readConfig(env.ASTRAML_CONFIG), 'spec');
  const given = config.raw('hyperparams') ?? readJson(env.ASTRAML_HYPERPARAMS || '{}', 'ASTRAML_HYPERPARAMS');
  const resources = readFields(config.raw('resources'), 'resources');
  const gpus = readNumber(env.ASTRAML_GPUS, { default: 0, min: 0 }, 'ASTRAML_GPUS');
  return {
    model: config.text('model') ?? env.ASTRAML_MODEL,
    dataset: config.text('dataset') ?? env.ASTRAML_DATASET,
    gpus: resources.number('gpus', { default: gpus, min: 0 }),
    ...readHyperparams(readFields(given, 'hyperparams')),
    augmentation: readAugmentation(config.raw('augmentation')),
    outputDir: env.ASTRAML_OUTPUT_DIR || undefined,
    stopFile: env.ASTRAML_STOP_FILE || undefined,
    ...flags,
  };
}

function readHyperparams(hyperparams: Fields) {
  const read = {
    batchSize: hyperparams.number('batch_size', { default: 32, min: 1, whole: true }),
    lr: hyperparams.number('lr', { default: 3e-5, above: 0 }),
    epochs: hyperparams.number('epochs', { default: 5, above: 0 }),
    earlyStopping: readEarlyStopping(hyperparams),
    scheduler: hyperparams.text('lr_scheduler') ?? 'cosine',
    accumulation: hyperparams.number('gradient_accumulation_steps', { default: 1, min: 1, whole: true }),
    seed: hyperparams.number('seed', { default: 1, whole: true }),
  };
  requireSchedule(read.scheduler);
  return { ...read, unused: hyperparams.rest() };
}

function readFlags(args: string[]) {
  const { values } = parseFlags(args);
  const count = (text: string | undefined, name: string) =>
    text === undefined ? undefined : readNumber(text, { default: 1, min: 1, whole: true }, name);
  return {
    atLeastSeconds: readNumber(values['at-least-seconds'], { default: 0, min: 0 }, '--at-least-seconds'),
    samples: count(values.samples, '--samples'),
    reportEvery: count(values['report-every'], '--report-every'),
  };
}

function parseFlags(args: string[]) {
  const string = { type: 'string' } as const;
  try {
    return parseArgs({ args, options: { 'at-least-seconds': string, samples: string, 'report-every': string } });
  } catch (error) {
    throw new Refusal(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
  }
}

function readConfig(path: string | undefined): unknown {
  if (path === undefined || path === '') return undefined;
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new Refusal(`ASTRAML_CONFIG cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
  return readJson(text, 'the file of ASTRAML_CONFIG');
}
