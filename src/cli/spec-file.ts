// Reads a job spec from a JSON or YAML file with `--set` over it, and checks it as a whole before
// it is sent.
import { readFileSync } from 'node:fs';
import { closest } from '../closest.ts';
import type { Issue } from '../errors.ts';
import { exitCodes, Failure, Refused, usage } from './failure.ts';

export type Json = Record<string, unknown>;

/** Reads a job spec file; `-` is stdin. */
export async function readSpecFile(path: string): Promise<Json> {
  const content = await readYamlFile(path);
  if (isObject(content)) return content;
  throw wrongContent(path, content, 'a job spec is an object with model, dataset, …');
}

/** Reads a JSON or YAML file; `-` is stdin. A syntax error names line and column. */
export async function readYamlFile(path: string): Promise<unknown> {
  const name = nameOf(path);
  const text = readText(path, name);
  if (path.endsWith('.json')) return parseJson(text, name);
  const { parseDocument } = await import('yaml');
  const document = parseDocument(text);
  const [problem] = document.errors;
  if (problem) throw new Failure(exitCodes.refused, syntaxError(name, problem));
  return document.toJS() as unknown;
}

/** Parses a file named .json as JSON, because YAML takes `"model":}` for an empty model. */
function parseJson(text: string, name: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Failure(
      exitCodes.refused,
      `${name} is not JSON: ${error instanceof Error ? error.message : String(error)}.`,
    );
  }
}

/** Makes the failure of a file whose content is not as `expected`. */
export function wrongContent(path: string, content: unknown, expected: string): Failure {
  const kind = content === null ? 'nothing' : Array.isArray(content) ? 'a list' : `a ${typeof content}`;
  return new Failure(exitCodes.refused, `${nameOf(path)} holds ${kind}; ${expected}.`);
}

function nameOf(path: string): string {
  return path === '-' ? 'stdin' : path;
}

/** Returns the text of a syntax error: its place, the problem, and the line itself. */
function syntaxError(
  name: string,
  { message, linePos }: { message: string; linePos?: { line: number; col: number }[] },
) {
  const { line, col } = linePos?.[0] ?? { line: 1, col: 1 };
  const [summary = '', ...frame] = message.split('\n');
  const what = summary.replace(/ at line \d+, column \d+:?$/, '');
  return [`${name}, line ${line}, column ${col}: ${what}.`, ...frame].join('\n').trimEnd();
}

function readText(path: string, name: string): string {
  try {
    return readFileSync(path === '-' ? 0 : path, 'utf8');
  } catch (error) {
    const why = error instanceof Error && 'code' in error ? error.code : error;
    throw usage(`${name} cannot be read: ${why === 'ENOENT' ? 'there is no such file' : String(why)}.`);
  }
}

/** Sets a value at a path of the spec, replacing that of the file. */
export function setPath(spec: Json, path: readonly string[], value: unknown): void {
  const [key = '', ...rest] = path;
  if (rest.length === 0) {
    define(spec, key, value);
    return;
  }
  const inner = Object.hasOwn(spec, key) ? spec[key] : undefined;
  const container = isObject(inner) ? { ...inner } : {};
  define(spec, key, container);
  setPath(container, rest, value);
}

/** Sets a field, also one such as `__proto__` that assignment would not make. */
function define(target: Json, key: string, value: unknown): void {
  Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true });
}

/**
 * Fields of the spec file that hold others: `--set` names these with a dot, e.g. `resources.gpus`.
 */
const objectFields = ['hyperparams', 'resources', 'metrics'];
const plainFields = [
  ...['project_id', 'model', 'dataset', 'augmentation', 'command', 'env', 'name', 'tags', 'notes'],
  ...['priority', 'max_retries', 'timeout_seconds', 'queue_timeout_seconds', 'start_timeout_seconds', 'on_cut'],
  'defaults_version',
];

/**
 * Applies `--set key=value`. The key is a hyperparameter or a dotted path of the spec; the value is
 * JSON if it parses, else text.
 */
export function applySet(spec: Json, assignment: string): void {
  const [key, text] = splitAssignment('--set', assignment);
  const [first = '', ...rest] = key.split('.');
  if ([first, ...rest].includes('')) throw usage(`--set ${key}: a part of the path is empty.`);
  setPath(spec, pathOf(first, rest), parseValue(text));
}

function pathOf(first: string, rest: string[]): string[] {
  if (first === 'early_stopping') return ['hyperparams', first, ...rest];
  if (rest.length > 0) {
    if (objectFields.includes(first)) return [first, ...rest];
    const near = closest(first, [...objectFields, 'early_stopping']);
    const hint = near ? `Did you mean "${[near, ...rest].join('.')}"?` : null;
    throw usage(`--set: "${first}" is no part of a job spec that has parts.`, hint);
  }
  if (objectFields.includes(first) || plainFields.includes(first)) {
    const hint = 'Use its own flag or the file; a hyperparameter of that name is hyperparams.' + first;
    throw usage(`--set: "${first}" is a field of the job spec, not a hyperparameter.`, `${hint}.`);
  }
  return ['hyperparams', first];
}

/** Splits `K=V` into its two parts. */
export function splitAssignment(flag: string, text: string): [string, string] {
  const separator = text.indexOf('=');
  if (separator < 1) throw usage(`${flag} takes name=value, got "${text}".`);
  return [text.slice(0, separator), text.slice(separator + 1)];
}

/** Returns the JSON value of the text, or the text itself if it does not parse. */
export function parseValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Returns the spec as `JobSpecInput`. Throws all of its problems together with `others`. */
export async function requireSpec(content: Json, others: readonly Issue[] = []): Promise<Json> {
  // Imported here, because every command loads this file and the spec loads zod.
  const [{ parseSpec }, { toInput }] = await Promise.all([import('../spec/spec.ts'), import('../spec/input.ts')]);
  const { spec, issues } = parseSpec(content);
  if (spec && others.length === 0) return toInput(spec);
  const projectHint = 'Name the project: -p p-demo, ASTRAML_PROJECT, or project_id in the file.';
  const lines = [...issues, ...others].map((issue) =>
    issue.specPath === 'project_id' && issue.code === 'REQUIRED' ? { ...issue, hint: projectHint } : issue,
  );
  const [first] = lines;
  const message = lines.length === 1 && first ? first.message : `The job spec has ${lines.length} problems:`;
  throw new Refused('INVALID_INPUT', message, lines, null);
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
