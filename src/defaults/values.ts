// Values that somebody wants to publish as a version → values by path: every problem of all of them at once. A version that
// is published gives every job a whole set of values, and no value that a job could not ask for.
import { type Issue, quote } from '../errors.ts';
import { findCredentials } from '../spec/credential.ts';
import { kindOfPath, layeredPaths, nearestPath, readValue } from '../spec/path.ts';
import { containers, notLayered } from '../spec/resolve.ts';
import { builtinVersions } from './versions.ts';

export type Values = { documented: Record<string, unknown>; platform: Record<string, unknown> };

const [first] = builtinVersions;
/** What the document lists: the source of these values is DEFAULT, of any other PLATFORM. */
const documentedPaths = Object.keys(first?.documented ?? {});
/**
 * A version holds at least the paths of the first one: effective hyperparameters are non-null, and a path that is left
 * out would not mean the value of another version but none at all. A path that came later may be absent: a job without
 * it does what it did before there was one.
 */
const requiredPaths = [...documentedPaths, ...Object.keys(first?.platform ?? {})].sort();
/** Each job or each project says these itself. */
const unversioned = new Set(['model', 'dataset', 'command']);

/** Paths that a version may hold, as far as this build knows. */
const knownPaths = layeredPaths.filter((path) => !unversioned.has(path));

/** Paths that this build has no meaning for: a newer one published them. */
export function unknownPaths(values: Values): string[] {
  const known = new Set(knownPaths);
  return [...Object.keys(values.documented), ...Object.keys(values.platform)].filter((path) => !known.has(path)).sort();
}

/** Values by path, with every problem; `at` is where the nested values were sent. Null means unset. */
export function readValues(nested: Record<string, unknown>, at: readonly string[]): Values & { issues: Issue[] } {
  const credentials = findCredentials(nested, at);
  if (credentials.length > 0) return { documented: {}, platform: {}, issues: credentials }; // others would repeat it
  const leaves = leavesOf(nested, []);
  const issues: Issue[] = [];
  const values: Values = { documented: {}, platform: {} };
  for (const { keys, value } of leaves) {
    const path = keys.join('.');
    const read = readLeaf(keys, value);
    for (const problem of read.problems) issues.push({ ...problem, path: [...at, ...keys], specPath: path });
    values[documentedPaths.includes(path) ? 'documented' : 'platform'][path] = read.value;
  }
  const given = new Set(leaves.map(({ keys }) => keys.join('.')));
  for (const path of requiredPaths.filter((required) => !given.has(required))) {
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
    // A list of operations is one value; an object under this name says what operations leave out.
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

/** `{ "a": { "b": … } }` of `a.b`. */
function nestedText(path: string): string {
  const keys = path.split('.');
  return `${keys.map((key) => `{ "${key}": `).join('')}…${' }'.repeat(keys.length)}`;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
