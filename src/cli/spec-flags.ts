// Flags of `submit` that beat the spec file, each with its path in the spec.
import type { Cli } from './cli.ts';
import { allUsage, usage } from './failure.ts';
import { toNumber, toSeconds } from './flags.ts';
import { applySet, type Json, readSpecFile, setPath, splitAssignment } from './spec-file.ts';

export type SpecFlags = {
  file?: string;
  model?: string;
  dataset?: string;
  gpus?: string;
  gpuModel?: string;
  label?: string[];
  batchSize?: string;
  epochs?: string;
  lr?: string;
  lrScheduler?: string;
  earlyStoppingPatience?: string;
  /** False for --no-early-stopping. */
  earlyStopping?: boolean;
  gradientAccumulationSteps?: string;
  set?: string[];
  env?: string[];
  secret?: string[];
  name?: string;
  tag?: string[];
  notes?: string;
  priority?: string;
  retries?: string;
  timeout?: string;
  queueTimeout?: string;
  startTimeout?: string;
  onCut?: string;
  defaultsVersion?: string;
};

type Kind = 'text' | 'number' | 'list';
type DurationFlag = keyof typeof durations;
type ValueFlag = Exclude<keyof SpecFlags, 'file' | 'set' | 'env' | 'secret' | 'earlyStopping' | DurationFlag>;

/** Flags that take a duration, each with its name and its path in the spec. */
const durations = {
  timeout: ['--timeout', 'timeout_seconds'],
  queueTimeout: ['--queue-timeout', 'queue_timeout_seconds'],
  startTimeout: ['--start-timeout', 'start_timeout_seconds'],
} as const;

const places: Record<ValueFlag, { kind: Kind; path: string }> = {
  model: { kind: 'text', path: 'model' },
  dataset: { kind: 'text', path: 'dataset' },
  gpus: { kind: 'number', path: 'resources.gpus' },
  gpuModel: { kind: 'text', path: 'resources.gpu_model' },
  label: { kind: 'list', path: 'resources.labels' },
  batchSize: { kind: 'number', path: 'hyperparams.batch_size' },
  epochs: { kind: 'number', path: 'hyperparams.epochs' },
  lr: { kind: 'number', path: 'hyperparams.lr' },
  lrScheduler: { kind: 'text', path: 'hyperparams.lr_scheduler' },
  earlyStoppingPatience: { kind: 'number', path: 'hyperparams.early_stopping.patience' },
  gradientAccumulationSteps: { kind: 'number', path: 'hyperparams.gradient_accumulation_steps' },
  name: { kind: 'text', path: 'name' },
  tag: { kind: 'list', path: 'tags' },
  notes: { kind: 'text', path: 'notes' },
  priority: { kind: 'number', path: 'priority' },
  retries: { kind: 'number', path: 'max_retries' },
  onCut: { kind: 'text', path: 'on_cut' },
  defaultsVersion: { kind: 'text', path: 'defaults_version' },
};

/**
 * Returns the unchecked job spec of file and flags; throws one error for all invalid flags. The
 * project comes from -p, else the file, else the environment or client.json.
 */
export async function mergeSpec(cli: Cli, flags: SpecFlags, command: string[]): Promise<Json> {
  const spec = flags.file === undefined ? {} : await readSpecFile(flags.file);
  const project = cli.globals.project ?? spec['project_id'] ?? cli.project;
  if (project !== null && project !== undefined) spec['project_id'] = project;
  allUsage([
    ...(flags.set ?? []).map((assignment) => () => applySet(spec, assignment)),
    ...Object.entries(places).map(([flag, { kind, path }]) => () => {
      const value = flags[flag as ValueFlag];
      if (value !== undefined)
        setPath(spec, path.split('.'), kind === 'number' ? toNumber(dashed(flag), String(value)) : value);
    }),
    () => {
      if (flags.earlyStopping === false) setPath(spec, ['hyperparams', 'early_stopping', 'enabled'], false);
    },
    ...Object.entries(durations).map(([flag, [name, path]]) => () => {
      const value = flags[flag as DurationFlag];
      if (value !== undefined) spec[path] = toSeconds(name, value);
    }),
    () => {
      if (flags.env ?? flags.secret) spec['env'] = mergeEnv(spec['env'], flags);
    },
  ]);
  if (command.length > 0) spec['command'] = command;
  return spec;
}

/** Returns the flag of a field, e.g. `--batch-size` for `batchSize`. */
function dashed(flag: string): string {
  return `--${flag.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** Merges environment variables: one of a flag replaces one of the file with the same name. */
function mergeEnv(inFile: unknown, { env = [], secret = [] }: SpecFlags): unknown {
  const literals = new Map(env.map((assignment) => splitAssignment('--env', assignment)));
  const fromFlags = [
    ...[...literals].map(([name, value]) => ({ name, from: { value } })),
    ...[...new Set(secret)].map((name) => ({ name: secretName(name), from: { secret: name } })),
  ];
  const named = new Set(fromFlags.map(({ name }) => name));
  // `requireSpec` refuses it
  if (inFile !== undefined && inFile !== null && !Array.isArray(inFile)) return inFile;
  const kept = (inFile ?? []).filter((entry: unknown) => !named.has(String((entry as Json | null)?.['name'])));
  return [...kept, ...fromFlags];
}

/**
 * Returns the name of a secret. The error for `NAME=value` does not repeat the text, which may hold
 * the value.
 */
function secretName(text: string): string {
  if (!text.includes('=')) return text;
  throw usage('--secret takes the name of a secret alone.', 'Its value is set with astraml secrets set.');
}
