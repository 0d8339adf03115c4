// The job spec: the shape of its file (snake_case JSON or YAML), its ranges, and all problems of a
// submission at once, each with its path, a code and, for a typing error, "did you mean". No
// default stands here: defaults are versioned data.
import { z } from 'zod';
import { closest, type Issue, maxIssues } from '../errors.ts';
import { listOf, textOf } from '../shape.ts';
import { boundIssues } from './bounds.ts';
import { findSpecCredentials, isCredential } from './credential.ts';

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

const spec = z.strictObject({
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

/** The fields of a job spec with their types; of hyperparameters only the known ones. */
export const specShape: Readonly<Record<string, z.ZodType>> = spec.shape;

/** Hyperparameters that the platform knows; any other is passed to the script unchanged. */
export const knownHyperparams = Object.keys(hyperparams.shape);
/**
 * Learning-rate schedules that training libraries know; another name is passed on with a warning.
 */
const knownSchedulers = [
  'constant',
  'constant_with_warmup',
  'cosine',
  'cosine_with_restarts',
  'exponential',
  'inverse_sqrt',
  'linear',
  'polynomial',
  'reduce_lr_on_plateau',
  'step',
];

export type Warning = { code: string; message: string; path: string[] | null };
export type ParsedSpec = { spec: Spec | null; issues: Issue[]; warnings: Warning[] };

/**
 * Checks the content of a job spec file. Null means unset. With issues, `spec` is null. `path` is
 * as in the file. Of very many issues it returns the first 101, so that `invalid()` can tell that
 * there are more. A spec that is too large gets only that issue.
 */
export function parseSpec(value: unknown): ParsedSpec {
  const tooLarge = boundIssues(value);
  if (tooLarge.length > 0) return { spec: null, issues: tooLarge, warnings: [] };
  const withoutNulls = dropNulls(value);
  const parsed = spec.safeParse(withoutNulls);
  // A key that is a credential is reported only by its own issue, which does not repeat it.
  const issues = findSpecCredentials(withoutNulls);
  for (const issue of problemsOf(parsed, withoutNulls)) {
    if (issues.length > maxIssues) break;
    if (!issue.path.some(isCredential)) issues.push(issue);
  }
  if (issues.length > 0 || !parsed.success) return { spec: null, issues, warnings: [] };
  return { spec: parsed.data, issues, warnings: warningsOf(parsed.data) };
}

/**
 * Returns the issues for which a spec must not even be stored with an idempotency key: it is too
 * large, or holds a credential.
 */
export function unkeepable(value: unknown): Issue[] {
  const tooLarge = boundIssues(value);
  return tooLarge.length > 0 ? tooLarge : findSpecCredentials(value);
}

/** Yields problems one at a time, so that the caller can stop early. */
function* problemsOf(parsed: z.ZodSafeParseResult<Spec>, sent: unknown): Generator<Issue> {
  for (const issue of parsed.error?.issues ?? []) yield* toIssues(issue, sent);
  yield* unstorable(sent, []);
  if (parsed.success) yield* crossChecks(parsed.data);
}

function crossChecks(parsed: Spec): Issue[] {
  const issues: Issue[] = [];
  const seen = new Set<string>();
  for (const [index, { name, from }] of (parsed.env ?? []).entries()) {
    const path = ['env', String(index), 'name'];
    const place = { path, specPath: `env.${index}.name` };
    if (name.startsWith('ASTRAML_')) {
      const message = `${name} is reserved: names that start with ASTRAML_ are set by the runner.`;
      issues.push({ ...place, code: 'NOT_ALLOWED', message, hint: 'Use another name.' });
    }
    if (seen.has(name)) issues.push({ ...place, code: 'NOT_ALLOWED', message: `${name} is set twice.` });
    seen.add(name);
    if ((from.value === undefined) === (from.secret === undefined)) issues.push(oneSource(index, from));
  }
  return issues;
}

/** Issue of a variable that has no source for its value, or two. */
function oneSource(index: number, from: object): Issue {
  const path = ['env', String(index), 'from'];
  const specPath = path.join('.');
  const hasBoth = Object.keys(from).length > 0;
  const message = hasBoth
    ? `${specPath} says both value and secret.`
    : `${specPath} must say where the value comes from.`;
  const hint = 'Say either value, for a literal, or secret, for the name of a secret of the project.';
  return { code: hasBoth ? 'NOT_ALLOWED' : 'REQUIRED', path, specPath, message, hint };
}

/** Number of unknown hyperparameters that are compared with known ones, to find typing errors. */
const maxSuggested = 100;

function warningsOf(parsed: Spec): Warning[] {
  const warnings: Warning[] = [];
  const free = Object.keys(parsed.hyperparams ?? {}).filter((name) => !knownHyperparams.includes(name));
  for (const name of free.slice(0, maxSuggested)) {
    const near = closest(name, knownHyperparams);
    if (near) {
      const message = `Hyperparameter "${name}" is passed on as it is. Did you mean "${near}"?`;
      warnings.push({ code: 'UNKNOWN_HYPERPARAM', message, path: ['hyperparams', name] });
    }
  }
  const scheduler = parsed.hyperparams?.lr_scheduler;
  if (scheduler && !knownSchedulers.includes(scheduler)) {
    const near = closest(scheduler, knownSchedulers);
    const message = `"${scheduler}" is no schedule that we know; the script must.${near ? ` Did you mean "${near}"?` : ''}`;
    warnings.push({ code: 'UNKNOWN_LR_SCHEDULER', message, path: ['hyperparams', 'lr_scheduler'] });
  }
  return warnings;
}

/**
 * Removes nulls, which mean unset, except inside of values that are passed to the script unchanged.
 */
function dropNulls(value: unknown, path: string[] = []): unknown {
  if (path.at(-1) === 'params' && path[0] === 'augmentation') return value;
  if (path[0] === 'hyperparams' && path.length === 2 && !knownHyperparams.includes(path[1] ?? '')) return value;
  if (Array.isArray(value)) return value.map((item, index) => dropNulls(item, [...path, String(index)]));
  if (typeof value !== 'object' || value === null) return value;
  const kept = Object.entries(value).filter(
    ([key, item]) => item !== null && item !== undefined && key !== '__proto__',
  );
  return Object.fromEntries(kept.map(([key, item]) => [key, dropNulls(item, [...path, key])]));
}

/**
 * Yields an issue for each text that the database cannot hold. It is refused rather than stored in
 * another form.
 */
function* unstorable(value: unknown, path: readonly string[]): Generator<Issue> {
  if (typeof value === 'string' && (value.includes('\0') || !value.isWellFormed())) {
    const specPath = path.join('.');
    const message = `${specPath} holds a NUL character or half a surrogate pair.`;
    const hint = 'Send valid Unicode text without NUL.';
    yield { code: 'MALFORMED', path: [...path], specPath, message, hint };
  }
  if (typeof value !== 'object' || value === null) return;
  for (const [key, item] of Object.entries(value)) {
    if (!Array.isArray(value)) yield* unstorable(key, path);
    if (typeof item === 'string' || typeof item === 'object') yield* unstorable(item, [...path, key]);
  }
}

function* toIssues(issue: z.core.$ZodIssue, sent: unknown): Generator<Issue> {
  if (issue.code !== 'unrecognized_keys') return yield toIssue(issue, sent);
  const path = issue.path.map(String);
  const known = knownKeys(path);
  for (const key of issue.keys) yield unknownField([...path, key], key, known);
}

function toIssue(issue: Exclude<z.core.$ZodIssue, z.core.$ZodIssueUnrecognizedKeys>, sent: unknown): Issue {
  const path = issue.path.map(String);
  const specPath = path.join('.');
  const place = specPath || 'The spec';
  const at = { path, specPath };
  switch (issue.code) {
    case 'invalid_type': {
      if (valueAt(sent, path) === undefined) {
        return { ...at, code: 'REQUIRED', message: `${place} is required.`, hint: hints[specPath] };
      }
      return { ...at, code: 'WRONG_TYPE', message: `${place} must be ${typeNames[issue.expected] ?? issue.expected}.` };
    }
    case 'too_small':
    case 'too_big':
      return { ...at, code: 'OUT_OF_RANGE', message: `${place} ${range(issue)}.` };
    case 'invalid_value': {
      const values = issue.values.map(String);
      const value = valueAt(sent, path);
      const near = typeof value === 'string' ? closest(value, values) : undefined;
      const hint = near ? `Did you mean "${near}"?` : undefined;
      return { ...at, code: 'NOT_ALLOWED', message: `${place} must be one of ${values.join(', ')}.`, hint };
    }
    case 'invalid_format': {
      const hint =
        path[0] === 'env'
          ? 'Letters, digits and underscores, not starting with a digit.'
          : 'Lower-case letters, digits and underscores, starting with a letter.';
      return { ...at, code: 'MALFORMED', message: `${place} is not a name that can be used.`, hint };
    }
    default:
      return { ...at, code: 'WRONG_TYPE', message: `${place} has another type than expected.` };
  }
}

const typeNames: Record<string, string> = {
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  tuple: 'a list',
  object: 'an object',
  record: 'an object',
};

const hints: Record<string, string> = {
  project_id: 'Name the project, e.g. p-demo.',
  model: 'Name the model to train, e.g. bert-base.',
  dataset: 'Name the dataset to train on, e.g. s3://bucket/dataset.',
};

function unknownField(path: string[], key: string, known: string[]): Issue {
  const specPath = path.join('.');
  const at = { path, specPath };
  if (specPath === 'schedule') {
    const message = 'schedule: a job is submitted once; what submits it again and again is a schedule of its own.';
    const hint = 'Create it with the mutation createSchedule, or astraml submit -f; or remove schedule from the spec.';
    return { ...at, code: 'NOT_ALLOWED', message, hint };
  }
  const near = closest(key, known);
  const hint = near ? `Did you mean "${near}"?` : `Known here: ${known.join(', ')}.`;
  return { ...at, code: 'UNKNOWN_FIELD', message: `${specPath} is no field of a job spec.`, hint };
}

function knownKeys(path: string[]): string[] {
  const [room, second] = path;
  if (!room) return Object.keys(spec.shape);
  if (room === 'hyperparams') return second ? Object.keys(earlyStopping.shape) : knownHyperparams;
  if (room === 'resources') return ['gpus', 'gpu_model', 'labels'];
  if (room === 'augmentation') return ['op', 'probability', 'params'];
  if (room === 'env') return path.includes('from') ? ['value', 'secret'] : ['name', 'from', 'not_secret'];
  return room === 'logs' ? ['max_bytes'] : ['window_seconds', 'max_names'];
}

function range(issue: z.core.$ZodIssueTooSmall | z.core.$ZodIssueTooBig): string {
  const small = issue.code === 'too_small';
  const bound = Number(small ? issue.minimum : issue.maximum);
  if (issue.origin === 'string') return small ? 'must not be empty' : `takes ${bound} characters at most`;
  if (issue.origin === 'array') return small ? 'must not be empty' : `takes ${bound} items at most`;
  if (small) return issue.inclusive ? `must be at least ${bound}` : `must be above ${bound}`;
  return issue.inclusive ? `must be at most ${bound}` : `must be below ${bound}`;
}

/**
 * Returns the value at a path. Only own properties count, so that inherited ones such as
 * `constructor` are never read.
 */
function valueAt(value: unknown, path: string[]): unknown {
  return path.reduce<unknown>(
    (inner, key) =>
      typeof inner === 'object' && inner !== null && Object.hasOwn(inner, key)
        ? (inner as Record<string, unknown>)[key]
        : undefined,
    value,
  );
}
