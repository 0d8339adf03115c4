// Converts between the job spec file (snake_case) and `JobSpecInput` of GraphQL (camelCase), two
// notations of one thing, and between paths in them.
import type { Issue } from '../errors.ts';
import { knownHyperparams } from './shape.ts';

type Json = Record<string, unknown>;

const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const camel = (name: string) => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

/**
 * Returns the object with its own keys in snake_case, without undefined ones; inner values stay as
 * they are.
 */
export function snakeKeys(value: object): Json {
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return Object.fromEntries(entries.map(([key, inner]: [string, unknown]) => [snake(key), inner]));
}

/** Fields whose inner keys are converted too; all other values are passed on untouched. */
const containers = new Set(['hyperparams', 'early_stopping', 'resources', 'metrics', 'logs']);

/** Converts a `JobSpecInput` into a job spec file, without null fields. */
export function fromInput(input: object): Json {
  const spec: Json = {};
  for (const [key, value] of Object.entries(input) as [string, unknown][]) {
    if (value === null || value === undefined) continue;
    const name = snake(key);
    spec[name] = containers.has(name) ? fromInput(value as object) : untouched(name, value);
  }
  const { extra, ...own } = spec;
  return extra ? { ...(extra as Json), ...own } : own;
}

/**
 * Removes nulls from the operations of `augmentation` and the entries of `env`; values inside of
 * these are passed on.
 */
function untouched(name: string, value: unknown): unknown {
  if (name !== 'augmentation' && name !== 'env') return value;
  return (value as object[]).map((item) =>
    Object.fromEntries(
      Object.entries(item)
        .filter(([, inner]) => inner !== null && inner !== undefined)
        .map(([key, inner]: [string, unknown]) => [snake(key), inner]),
    ),
  );
}

/**
 * Converts a job spec file into a `JobSpecInput`: unknown hyperparameters move into `extra`. The
 * spec must have passed `parseSpec`.
 */
export function toInput(spec: object, inside = ''): Json {
  const input: Json = {};
  const extra: Json = {};
  for (const [key, value] of Object.entries(spec) as [string, unknown][]) {
    if (inside === 'hyperparams' && !knownHyperparams.includes(key)) extra[key] = value;
    else if (key === 'env') input[key] = (value as object[]).map((variable) => toInput(variable));
    else input[camel(key)] = containers.has(key) && isObject(value) ? toInput(value, key) : value;
  }
  return Object.keys(extra).length > 0 ? { ...input, extra } : input;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Converts the path of an issue for a caller that sent the spec over GraphQL under `prefix`, e.g.
 * `input.spec`.
 */
export function atInput(issue: Issue, prefix: readonly string[]): Issue {
  const [room, name = '', ...rest] = issue.path;
  const path =
    room === 'hyperparams' && name && !knownHyperparams.includes(name)
      ? ['hyperparams', 'extra', name, ...rest]
      : issue.path.map((key, index) => (index > 1 && room === 'augmentation' ? key : camel(key)));
  return { ...issue, path: [...prefix, ...path] };
}

/**
 * Converts a path of `JobSpecInput` into one of the job spec file, e.g. `hyperparams.batch_size`.
 */
export function specPathOf(path: readonly string[]): string {
  const [room = '', second, ...rest] = path;
  if (room === 'hyperparams' && second === 'extra') return ['hyperparams', ...rest].join('.');
  return path.map((key, index) => (index > 1 && room === 'augmentation' ? key : snake(key))).join('.');
}

/**
 * Issues for hyperparameters in `extra` that have fields of their own: one value must not hide
 * another.
 */
export function shadowedExtras(input: { hyperparams?: { extra?: Json | null } | null }): Issue[] {
  return Object.keys(input.hyperparams?.extra ?? {})
    .filter((key) => knownHyperparams.includes(key))
    .map((key) => ({
      code: 'NOT_ALLOWED',
      path: ['hyperparams', 'extra', key],
      specPath: `hyperparams.${key}`,
      message: `hyperparams.extra.${key} has a field of its own.`,
      hint: `Set hyperparams.${camel(key)}.`,
    }));
}
