// Turns values that an administrator publishes as a version into values by path, and collects every
// problem. A published version gives a job a whole set of values, none of which a job could not ask
// for.
import { type Issue, quote } from '../errors.ts';
import { findCredentials } from '../spec/credential.ts';
import { kindOfPath, layeredPaths, nearestPath, readValue } from '../spec/path.ts';
import { containers, notLayered } from '../spec/resolve.ts';
import { builtinVersions } from './versions.ts';

export type Values = { documented: Record<string, unknown>; platform: Record<string, unknown> };

const [first] = builtinVersions;
/**
 * Paths whose values have the source DEFAULT, since the document lists them; others have PLATFORM.
 */
const documentedPaths = Object.keys(first?.documented ?? {});
/**
 * Paths that every version must have: those of the first one. A path that is missing would have no
 * value at all, not that of another version, and effective hyperparameters are never null. A path
 * that a later version added may be absent, because jobs without it act as before.
 */
const requiredPaths = [...documentedPaths, ...Object.keys(first?.platform ?? {})].sort();
/** Paths without a default: each job or project sets them. */
const unversioned = new Set(['model', 'dataset', 'command']);

/** Paths that a version may have, as far as this build supports them. */
const knownPaths = layeredPaths.filter((path) => !unversioned.has(path));

/** Returns the paths that this build does not support: a newer build published them. */
export function unknownPaths(values: Values): string[] {
  const known = new Set(knownPaths);
  return [...Object.keys(values.documented), ...Object.keys(values.platform)].filter((path) => !known.has(path)).sort();
}

/**
 * Returns values by path and every problem. `at` is the path of the nested values in the request.
 * Null counts as unset.
 */
export function readValues(nested: Record<string, unknown>, at: readonly string[]): Values & { issues: Issue[] } {
  const credentials = findCredentials(nested, at);
  // messages of other problems could repeat the credential
  if (credentials.length > 0) return { documented: {}, platform: {}, issues: credentials };
  const leaves = leavesOf(nested, []);
  const issues: Issue[] = [];
  const values: Values = { documented: {}, platform: {} };
  for (const { keys, value } of leaves) {
    const path = keys.join('.');
    const read = readLeaf(keys, value);
    for (const problem of read.problems) issues.push({ ...problem, path: [...at, ...keys], specPath: path });
    values[documentedPaths.includes(path) ? 'documented' : 'platform'][path] = read.value;
  }
  const presentPaths = new Set(leaves.map(({ keys }) => keys.join('.')));
  for (const path of requiredPaths.filter((required) => !presentPaths.has(required))) {
    const message = `${path} is missing: a version gives a value to every path.`;
    const hint = 'Start from the values of another version and change what shall differ.';
    issues.push({ code: 'REQUIRED', path: [...at, ...path.split('.')], specPath: path, message, hint });
  }
  return { ...values, issues };
}

type Leaf = { keys: string[]; value: unknown };

function leavesOf(nested: object, prefix: string[]): Leaf[] {
  return Object.entries(nested).flatMap(([key, value]: [string, unknown]): Leaf[] => {
    const keys = [...prefix, key];
    const path = keys.join('.');
    if (value === null || value === undefined) return [];
    // An object under `augmentation` holds the defaults of operations; a list of operations is one
    // value.
    const isNested = containers.has(path) || path === 'augmentation';
    return isNested && isObject(value) ? leavesOf(value, keys) : [{ keys, value }];
  });
}

type Problem = Pick<Issue, 'code' | 'message' | 'hint'>;

function readLeaf(keys: string[], value: unknown): { value: unknown; problems: Problem[] } {
  const path = keys.join('.');
  const refuse = (code: Issue['code'], message: string, hint?: string) => ({
    value,
    problems: [{ code, message, hint }],
  });
  if (keys.some((key) => key.includes('.')) && knownPaths.includes(path)) {
    return refuse('MALFORMED', `${path} is one key.`, `Nest it, as in a job spec file: ${nestedText(path)}.`);
  }
  if (notLayered.has(path) || unversioned.has(path)) {
    const hint = path === 'command' ? 'Give it to the project.' : 'Leave it out.';
    return refuse('NOT_ALLOWED', `${path} has no default for the whole platform.`, hint);
  }
  if (containers.has(path)) return refuse('WRONG_TYPE', `${path} must be an object.`);
  if (!knownPaths.includes(path)) return refuse('UNKNOWN_FIELD', unknownMessage(path), unknownHint(path));
  const read = readValue(path, value);
  return { value: read.value, problems: read.issues };
}

function unknownMessage(path: string): string {
  const shown = path.length <= 80 ? path : quote(path);
  const isFree = kindOfPath(path) === 'free';
  return `${shown} is no path that ${isFree ? 'jobs of every project know' : 'a job spec has'}.`;
}

function unknownHint(path: string): string {
  const near = nearestPath(path);
  if (near && knownPaths.includes(near)) return `Did you mean "${near}"?`;
  if (kindOfPath(path) === 'free') return "Make it a default of a project's policy instead.";
  return `Known: ${knownPaths.join(', ')}.`;
}

/** Returns `{ "a": { "b": … } }` for the path `a.b`. */
function nestedText(path: string): string {
  const keys = path.split('.');
  return `${keys.map((key) => `{ "${key}": `).join('')}…${' }'.repeat(keys.length)}`;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
