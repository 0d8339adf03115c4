// Finds credentials in texts that every member of a project may read: known shapes anywhere, and
// random-looking values under names of secrets. A finding is refused with its place and the right
// way to pass a secret; its text is never repeated.
import { type Issue, maxIssues } from '../errors.ts';
import { commandPatterns, holdsCommandPassword, isCommandPassword, programOf } from './credential-command.ts';
import { shapeIn as shapeOf, shapePatterns } from './credential-shapes.ts';
import { isRandom, isSecretName, looksSecret } from './credential-values.ts';

const bearer = /\b(?:Bearer|Basic)\s{1,3}([\w.~+/=-]{16,})/gi;
/** `name=value`, `"name": "value"`, `name='a b'`, in a text or a command. */
const assignment =
  /(?:^|[\s"'`;,?&{([])-{0,2}([A-Za-z][\w.-]{0,99}?)\\?["']?\s{0,3}[=:]\s{0,3}(?:"([^"\n]{6,1000})"|'([^'\n]{6,1000})'|\\?["']?([^\s"'`;,&]{6,}))/g;
/** `--name value` within a text. */
const flagged = /(?:^|\s)-{1,2}([A-Za-z][\w-]{0,99})\s{1,3}["']?([^\s"'`;,&-][^\s"'`;,&]{5,1000})/g;
/**
 * Code that reads the value from elsewhere: `read(path)`, `settings['token']`, `answer?.secret`.
 */
const expression = /^[A-Za-z_$][\w$]*(?:\??\.[A-Za-z_$][\w$]*)*(?:[([]|\?\.)/;
const flag = /^-{1,2}([A-Za-z][\w.-]{0,99})$/;

/** All patterns that run over whole texts; a test checks that each takes linear time. */
export const credentialPatterns: readonly RegExp[] = [
  ...shapePatterns,
  ...commandPatterns,
  ...[bearer, assignment, flagged, expression],
];

/** Levels that are searched: deeper values are refused for their depth. */
const maxDepth = 40;
/** Characters of a text that are searched: no field takes a longer one. */
const maxSearched = 32_768;
/** Length of the shortest shape, a URL with a password. */
const minShape = 'ab://:x@'.length;
/** Upper bound of the length of a flag: a longer word is none. */
const maxFlag = 102;

/**
 * Returns an issue (SECRET_LITERAL) for each text inside of the value that looks like a credential,
 * at most 101. `path` is the place of the value; `name` is its name, by default the last key of the
 * path that is no index. No issue holds a part of a value.
 */
export function findCredentials(value: unknown, path: readonly string[], name = nameOf(path)): Issue[] {
  const issues: Issue[] = [];
  search(value, [...path], name, issues);
  return issues;
}

/**
 * Searches a value. `path` is one list for the whole search: each level adds its key and removes
 * it.
 */
function search(value: unknown, path: string[], name: string, issues: Issue[]): void {
  if (issues.length > maxIssues) return;
  if (typeof value === 'string') {
    const credential = credentialIn(value, name);
    if (credential) issues.push(issueAt(path, credential, name));
    return;
  }
  if (typeof value !== 'object' || value === null || path.length > maxDepth) return;
  const isList = Array.isArray(value);
  const program = isList ? programOf(value) : null;
  for (const key of Object.keys(value)) {
    const item = (value as Record<string, unknown>)[key];
    if (isList) searchItem(value, Number(key), program, name, path, issues);
    else if (isCredential(key)) issues.push(...credentialKey(key, path));
    else searchField(key, item, key, path, issues);
  }
}

/**
 * Searches an item of a list. In a command, the word before it may be a flag that takes a password.
 */
function searchItem(
  list: readonly unknown[],
  index: number,
  program: string | null,
  name: string,
  path: string[],
  issues: Issue[],
): void {
  const [before, item] = [list[index - 1], list[index]];
  const issuesBefore = issues.length;
  searchField(String(index), item, flagBefore(list, index, item) ?? name, path, issues);
  if (program === null || typeof item !== 'string' || issues.length > issuesBefore) return;
  if (isCommandPassword(program, before, item.slice(0, maxSearched))) {
    issues.push(issueAt([...path, String(index)], commandPassword, ''));
  }
}

function searchField(key: string, item: unknown, name: string, path: string[], issues: Issue[]): void {
  if (typeof item !== 'string' && typeof item !== 'object') return;
  path.push(key);
  search(item, path, name, issues);
  path.pop();
}

/** Returns the issue of a key that is a credential itself; the key is not repeated. */
function credentialKey(key: string, path: readonly string[]): Issue[] {
  const shape = shapeIn(key);
  return shape ? [issueAt([...path, '…'], shape, '')] : [];
}

/** Returns the name of the flag before an item, e.g. `token` for the text behind `--token`. */
function flagBefore(list: readonly unknown[], index: number, item: unknown): string | undefined {
  const before = index > 0 && typeof item === 'string' ? list[index - 1] : undefined;
  return typeof before === 'string' && before.length <= maxFlag ? flag.exec(before)?.[1] : undefined;
}

/** Like `findCredentials` for a job spec, where the name of a variable stands beside its value. */
export function findSpecCredentials(spec: unknown): Issue[] {
  if (typeof spec !== 'object' || spec === null) return [];
  const { env, ...rest } = spec as Record<string, unknown>;
  const issues = findCredentials(rest, []);
  for (const [index, variable] of (Array.isArray(env) ? (env as unknown[]) : []).entries()) {
    if (issues.length > maxIssues) break;
    issues.push(...inVariable(variable, ['env', String(index)]));
  }
  return issues.map((issue) => ({ ...issue, specPath: issue.path.join('.') }));
}

/** Whether a key of a path is a credential itself, so that it must not be repeated. */
export function isCredential(text: string): boolean {
  return shapeIn(text) !== null;
}

function inVariable(variable: unknown, path: string[]): Issue[] {
  if (typeof variable !== 'object' || variable === null) return findCredentials(variable, path, '');
  const { name, from, not_secret: notSecret, ...rest } = variable as Record<string, unknown>;
  const called = typeof name === 'string' ? name : '';
  const inName = findCredentials(name, [...path, 'name'], '');
  const { value, secret } = Object(from) as Record<string, unknown>;
  const source = notSecret === true ? [] : findCredentials(value, [...path, 'from', 'value'], called);
  const wayOut = ' If it is no credential, add not_secret: true (notSecret in GraphQL) to this variable.';
  return [
    ...inName,
    ...source.map((issue) => ({ ...issue, hint: `${issue.hint ?? ''}${wayOut}` })),
    ...findCredentials(secret, [...path, 'from', 'secret'], ''),
    ...findCredentials(rest, path, ''),
  ];
}

type Credential = { kind: string; name: string };

const commandPassword: Credential = { kind: 'a password in a command', name: 'PASSWORD' };

/**
 * Returns the kind of credential that the text holds; null for none. Takes time linear in the
 * length of the text.
 */
export function credentialIn(whole: string, name: string): Credential | null {
  const text = whole.slice(0, maxSearched);
  const shape = shapeIn(text);
  if (shape) return shape;
  if (looksSecret(name, text)) return { kind: 'a credential', name: variableName(name) };
  for (const [, token = ''] of text.matchAll(bearer)) {
    if (isRandom(token)) return { kind: 'a bearer token', name: 'ACCESS_TOKEN' };
  }
  for (const pattern of [assignment, flagged]) {
    for (const [, called = '', ...values] of text.matchAll(pattern)) {
      const value = values.find((group) => group !== undefined) ?? '';
      if (expression.test(value)) continue;
      if (looksSecret(called, value)) return { kind: 'a credential', name: variableName(called) };
    }
  }
  return holdsCommandPassword(text) ? commandPassword : null;
}

function shapeIn(text: string): Credential | null {
  return text.length < minShape ? null : shapeOf(text.slice(0, maxSearched));
}

function issueAt(path: readonly string[], { kind, name: usual }: Credential, name: string): Issue {
  const secret = isSecretName(name) ? variableName(name) : usual;
  const hint = `Keep it with "astraml secrets set ${secret}", and name it: env: [{name: ${secret}, from: {secret: ${secret}}}].`;
  const message = `${path.join('.')} looks like ${kind}: it must not stand in the open.`;
  return { code: 'SECRET_LITERAL', path: [...path], message, hint };
}

function variableName(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replace(/\W+/g, '_')
    .toUpperCase();
}

function nameOf(path: readonly string[]): string {
  return path.findLast((key) => !/^\d+$/.test(key)) ?? '';
}
