// Credentials that somebody wrote where everybody may read: known shapes anywhere, random-looking values under names of
// secrets. What is found is refused with its place and the way to do it right, and never repeated.
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
/** Code that gets the value elsewhere: `read(path)`, `settings['token']`, `answer?.secret`. */
const expression = /^[A-Za-z_$][\w$]*(?:\??\.[A-Za-z_$][\w$]*)*(?:[([]|\?\.)/;
const flag = /^-{1,2}([A-Za-z][\w.-]{0,99})$/;

/** All patterns that meet whole texts; a test holds that each is linear. */
export const credentialPatterns: readonly RegExp[] = [
  ...shapePatterns,
  ...commandPatterns,
  ...[bearer, assignment, flagged, expression],
];

/** What is nested deeper is refused as such. */
const maxDepth = 40;
/** No field takes a longer text: what lies behind is refused for its length, and is not searched. */
const maxSearched = 32_768;
/** The shortest shape is a URL with a password. */
const minShape = 'ab://:x@'.length;
/** A longer word before a value is no flag of a command. */
const maxFlag = 102;

/**
 * An issue (SECRET_LITERAL) for each text inside of the value that looks like a credential, the first hundred and one.
 * `path` is where the value was sent, `name` what it is called there: by default the last key of the path that is no
 * index. Holds no part of a value.
 */
export function findCredentials(value: unknown, path: readonly string[], name = nameOf(path)): Issue[] {
  const issues: Issue[] = [];
  search(value, [...path], name, issues);
  return issues;
}

/** `path` is one list for the whole search: each level adds its key and takes it away. */
function search(value: unknown, path: string[], name: string, issues: Issue[]): void {
  if (issues.length > maxIssues) return;
  if (typeof value === 'string') {
    const found = credentialIn(value, name);
    if (found) issues.push(issueAt(path, found, name));
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

/** A word of a command may be what the word before it asks for. */
function searchItem(
  list: readonly unknown[],
  index: number,
  program: string | null,
  name: string,
  path: string[],
  issues: Issue[],
): void {
  const [before, item] = [list[index - 1], list[index]];
  const known = issues.length;
  searchField(String(index), item, flagBefore(list, index, item) ?? name, path, issues);
  if (program === null || typeof item !== 'string' || issues.length > known) return;
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

/** For a key that is a credential itself: it is not repeated. */
function credentialKey(key: string, path: readonly string[]): Issue[] {
  const shape = shapeIn(key);
  return shape ? [issueAt([...path, '…'], shape, '')] : [];
}

/** `token` for the text behind `--token` in a list. */
function flagBefore(list: readonly unknown[], index: number, item: unknown): string | undefined {
  const before = index > 0 && typeof item === 'string' ? list[index - 1] : undefined;
  return typeof before === 'string' && before.length <= maxFlag ? flag.exec(before)?.[1] : undefined;
}

/** The same for the content of a job spec file, where a variable's name stands beside its value. */
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

type Found = { kind: string; name: string };

const commandPassword: Found = { kind: 'a password in a command', name: 'PASSWORD' };

/** What the text holds, if it looks like a credential; its time grows with the length of the text at most. */
export function credentialIn(whole: string, name: string): Found | null {
  const text = whole.slice(0, maxSearched);
  const shape = shapeIn(text);
  if (shape) return shape;
  if (looksSecret(name, text)) return { kind: 'a credential', name: variableName(name) };
  for (const [, token = ''] of text.matchAll(bearer)) {
    if (isRandom(token)) return { kind: 'a bearer token', name: 'ACCESS_TOKEN' };
  }
  for (const pattern of [assignment, flagged]) {
    for (const [, called = '', ...values] of text.matchAll(pattern)) {
      const value = values.find((found) => found !== undefined) ?? '';
      if (expression.test(value)) continue;
      if (looksSecret(called, value)) return { kind: 'a credential', name: variableName(called) };
    }
  }
  return holdsCommandPassword(text) ? commandPassword : null;
}

function shapeIn(text: string): Found | null {
  return text.length < minShape ? null : shapeOf(text.slice(0, maxSearched));
}

function issueAt(path: readonly string[], { kind, name: usual }: Found, name: string): Issue {
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
