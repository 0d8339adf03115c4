// Checks a job spec as a whole: every problem of a submission is reported at once.
import type { z } from 'zod';
import { closest } from '../closest.ts';
import { type Issue, maxIssues } from '../errors.ts';
import { boundIssues } from './bounds.ts';
import { findSpecCredentials, isCredential } from './credential.ts';
import { toIssues } from './problem.ts';
import { knownHyperparams, type Spec, spec } from './shape.ts';

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
