// A job spec: a JSON or YAML file, `--set` over it, checked as a whole before anything is sent.
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

/** Reads a file of JSON, which is YAML too, or YAML; `-` is stdin. A syntax error has its line and column. */
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

/** YAML takes `"model":}` for an empty model: what calls itself JSON is read as JSON. */
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

/** A file that holds something else than is `expected`. */
export function wrongContent(path: string, content: unknown, expected: string): Failure {
  const found = content === null ? 'nothing' : Array.isArray(content) ? 'a list' : `a ${typeof content}`;
  return new Failure(exitCodes.refused, `${nameOf(path)} holds ${found}; ${expected}.`);
}

function nameOf(path: string): string {
  return path === '-' ? 'stdin' : path;
}

/** The place first, then what is wrong there and the line itself. */
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

/** Sets a value at a path of the spec, over what the file says. */
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

/** Also for a key that an object has from birth. */
function define(target: Json, key: string, value: unknown): void {
  Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true });
}

/** Fields of the spec file, as `--set` may name them with a dot. */
const objectFields = ['hyperparams', 'resources', 'metrics'];
const plainFields = [
  ...['project_id', 'model', 'dataset', 'augmentation', 'command', 'env', 'name', 'tags', 'notes'],
  ...['priority', 'max_retries', 'timeout_seconds', 'queue_timeout_seconds', 'start_timeout_seconds', 'on_cut'],
  'defaults_version',
];

/** `--set k=v`: k is a hyperparameter or a dotted path of the spec; v is JSON where it parses, else text. */
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

/** `K=V` in its two parts. */
export function splitAssignment(flag: string, text: string): [string, string] {
  const at = text.indexOf('=');
  if (at < 1) throw usage(`${flag} takes name=value, got "${text}".`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** JSON where it parses, else text. */
export function parseValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** The spec as `JobSpecInput`; throws all of its problems and the `others`. */
export async function requireSpec(content: Json, others: readonly Issue[] = []): Promise<Json> {
  // Imported at the call: every command line loads this file, and the shape of a spec brings zod.
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
