// The shape of a job spec, in the snake_case of the job spec file: its fields with their types and
// ranges, as it is sent (`Spec`) and with every value filled in (`EffectiveSpec`). No default
// stands here: defaults are versioned data.
import { z } from 'zod';
import { listOf, textOf } from '../shape.ts';

const text = (max: number) => textOf(1, max);
const whole = (min: number, max: number) => z.int().min(min).max(max);
const envName = textOf(0, 255).regex(/^[A-Za-z_][A-Za-z0-9_]*$/);
const word = textOf(0, 100).regex(/^[a-z][a-z0-9_]*$/);

const earlyStopping = z.strictObject({
  enabled: z.boolean().optional(),
  patience: whole(1, 1_000_000).optional(),
  monitor: text(250).optional(),
  goal: z.enum(['MINIMIZE', 'MAXIMIZE']).optional(),
  min_delta: z.number().min(0).max(1e9).optional(),
});

const hyperparams = z.looseObject({
  batch_size: whole(1, 1_000_000).optional(),
  lr: z.number().positive().max(1_000).optional(),
  epochs: z.number().positive().max(1_000_000).optional(),
  early_stopping: earlyStopping.optional(),
  lr_scheduler: word.optional(),
  gradient_accumulation_steps: whole(1, 1_000_000).optional(),
});

export const spec = z.strictObject({
  project_id: text(64),
  model: text(500),
  dataset: text(2_048),
  hyperparams: hyperparams.optional(),
  augmentation: listOf(
    z.strictObject({
      op: word,
      probability: z.number().min(0).max(1).optional(),
      params: z.record(z.string(), z.unknown()).optional(),
    }),
    50,
  ).optional(),
  resources: z
    .strictObject({
      gpus: whole(0, 1_024).optional(),
      gpu_model: text(100).optional(),
      labels: listOf(text(100), 50).optional(),
    })
    .optional(),
  // An argument may be empty; the program may not.
  command: z.tuple([text(32_768)], textOf(0, 32_768)).optional(),
  env: listOf(
    z.strictObject({
      name: envName,
      from: z.strictObject({ value: textOf(0, 32_768).optional(), secret: text(255).optional() }),
      /** Declares that a literal which looks like a credential is none. */
      not_secret: z.boolean().optional(),
    }),
    500,
  ).optional(),
  name: text(100).optional(),
  tags: listOf(text(100), 50).optional(),
  notes: textOf(0, 20_000).optional(),
  priority: whole(-100, 100).optional(),
  max_retries: whole(0, 10).optional(),
  timeout_seconds: whole(1, 31_536_000).optional(),
  queue_timeout_seconds: whole(1, 31_536_000).optional(),
  start_timeout_seconds: whole(1, 86_400).optional(),
  on_cut: z.enum(['continue', 'stop']).optional(),
  defaults_version: text(50).optional(),
  metrics: z
    .strictObject({
      window_seconds: whole(1, 86_400).optional(),
      /**
       * `max_names` has no default: the limit is the operator's ASTRAML_MAX_METRIC_NAMES, and this
       * may only lower it.
       */
      max_names: whole(1, 1_000_000).optional(),
    })
    .optional(),
  logs: z.strictObject({ max_bytes: whole(1_024, 1_099_511_627_776).optional() }).optional(),
});

export type Spec = z.output<typeof spec>;

/** The type `Shape`, in which the fields `Name` are required. */
type With<Shape, Name extends keyof Shape> = Shape & { [Key in Name]-?: NonNullable<Shape[Key]> };
type Hyperparams = z.output<typeof hyperparams>;

/**
 * A spec as a job stores it and its runner gets it: request, policy, project and defaults have
 * filled it in. A version of the defaults has a value for every path that is required here; a
 * submission without a command is refused.
 */
export type EffectiveSpec = With<
  Omit<
    Spec,
    'name' | 'tags' | 'notes' | 'defaults_version' | 'hyperparams' | 'augmentation' | 'resources' | 'metrics' | 'logs'
  >,
  'command' | 'priority' | 'max_retries'
> & {
  hyperparams: With<Hyperparams, 'batch_size' | 'lr' | 'epochs' | 'lr_scheduler' | 'gradient_accumulation_steps'> & {
    early_stopping: With<z.output<typeof earlyStopping>, 'enabled' | 'patience' | 'goal' | 'min_delta'>;
  };
  augmentation?: { op: string; probability: number; params: Record<string, unknown> }[];
  resources: With<NonNullable<Spec['resources']>, 'gpus' | 'labels'>;
  metrics: With<NonNullable<Spec['metrics']>, 'window_seconds'>;
  logs: With<NonNullable<Spec['logs']>, 'max_bytes'>;
};

/** The fields of a job spec with their types; of hyperparameters only the known ones. */
export const specShape: Readonly<Record<string, z.ZodType>> = spec.shape;

/** Hyperparameters that the platform knows; any other is passed to the script unchanged. */
export const knownHyperparams = Object.keys(hyperparams.shape);

/** Names that an object at this path may hold; an empty list for other paths. */
export function knownKeys(path: string[]): string[] {
  const [room, second] = path;
  if (!room) return Object.keys(spec.shape);
  if (room === 'hyperparams') return second ? Object.keys(earlyStopping.shape) : knownHyperparams;
  if (room === 'resources') return ['gpus', 'gpu_model', 'labels'];
  if (room === 'augmentation') return ['op', 'probability', 'params'];
  if (room === 'env') return path.includes('from') ? ['value', 'secret'] : ['name', 'from', 'not_secret'];
  return room === 'logs' ? ['max_bytes'] : ['window_seconds', 'max_names'];
}
