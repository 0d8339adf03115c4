// Turns a problem that zod finds in a job spec into an issue in our words: its path, a code and,
// for a typing error, "did you mean".
import type { z } from 'zod';
import { closest } from '../closest.ts';
import type { Issue } from '../errors.ts';
import { knownKeys } from './shape.ts';

/**
 * Yields the issues of one problem that zod found in `sent`; an object may have several unknown
 * keys.
 */
export function* toIssues(issue: z.core.$ZodIssue, sent: unknown): Generator<Issue> {
  if (issue.code !== 'unrecognized_keys') return yield toIssue(issue, sent);
  const path = issue.path.map(String);
  const names = knownKeys(path);
  for (const key of issue.keys) yield unknownField([...path, key], key, names);
}

function toIssue(issue: Exclude<z.core.$ZodIssue, z.core.$ZodIssueUnrecognizedKeys>, sent: unknown): Issue {
  const path = issue.path.map(String);
  const specPath = path.join('.');
  const place = specPath || 'The spec';
  const location = { path, specPath };
  switch (issue.code) {
    case 'invalid_type': {
      if (valueAt(sent, path) === undefined) {
        return { ...location, code: 'REQUIRED', message: `${place} is required.`, hint: hints[specPath] };
      }
      return {
        ...location,
        code: 'WRONG_TYPE',
        message: `${place} must be ${typeNames[issue.expected] ?? issue.expected}.`,
      };
    }
    case 'too_small':
    case 'too_big':
      return { ...location, code: 'OUT_OF_RANGE', message: `${place} ${range(issue)}.` };
    case 'invalid_value': {
      const values = issue.values.map(String);
      const value = valueAt(sent, path);
      const near = typeof value === 'string' ? closest(value, values) : undefined;
      const hint = near ? `Did you mean "${near}"?` : undefined;
      return { ...location, code: 'NOT_ALLOWED', message: `${place} must be one of ${values.join(', ')}.`, hint };
    }
    case 'invalid_format': {
      const hint =
        path[0] === 'env'
          ? 'Letters, digits and underscores, not starting with a digit.'
          : 'Lower-case letters, digits and underscores, starting with a letter.';
      return { ...location, code: 'MALFORMED', message: `${place} is not a name that can be used.`, hint };
    }
    default:
      return { ...location, code: 'WRONG_TYPE', message: `${place} has another type than expected.` };
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

function unknownField(path: string[], key: string, names: string[]): Issue {
  const specPath = path.join('.');
  const location = { path, specPath };
  if (specPath === 'schedule') {
    const message = 'schedule: a job is submitted once; what submits it again and again is a schedule of its own.';
    const hint = 'Create it with the mutation createSchedule, or astraml submit -f; or remove schedule from the spec.';
    return { ...location, code: 'NOT_ALLOWED', message, hint };
  }
  const near = closest(key, names);
  const hint = near ? `Did you mean "${near}"?` : `Known here: ${names.join(', ')}.`;
  return { ...location, code: 'UNKNOWN_FIELD', message: `${specPath} is no field of a job spec.`, hint };
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
