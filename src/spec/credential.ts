// Credentials that somebody wrote where everybody may read: known shapes anywhere, random-looking values under names of
// secrets. What is found is refused with its place and the way to do it right, and never repeated.
import { type Issue, maxIssues } from '../errors.ts';

/** A shape that nothing else has. `name` is what its secret is usually called. */
type Shape = { kind: string; name: string; pattern: RegExp };

const shapes: Shape[] = [
  { kind: 'an AWS access key id', name: 'AWS_ACCESS_KEY_ID', pattern: /\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b/ },
  {
    kind: 'an AWS secret access key',
    name: 'AWS_SECRET_ACCESS_KEY',
    pattern: /(?:aws|secret)[\w-]{0,20}key\W{1,8}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])/i,
  },
  {
    kind: 'a GitHub token',
    name: 'GITHUB_TOKEN',
    pattern: /(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_\w{22,255})/,
  },
  { kind: 'a GitLab token', name: 'GITLAB_TOKEN', pattern: /\bglpat-[\w-]{20,}/ },
  { kind: 'a Hugging Face token', name: 'HF_TOKEN', pattern: /(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z0-9]{30,}/ },
  { kind: 'an Anthropic key', name: 'ANTHROPIC_API_KEY', pattern: /\bsk-ant-[\w-]{20,}/ },
  {
    kind: 'an OpenAI key',
    name: 'OPENAI_API_KEY',
    pattern: /(?<![\w-])sk-(?:(?:proj|svcacct|admin|None)-[\w-]{20,}|[A-Za-z0-9]{32,})/,
  },
  {
    kind: 'a Slack token',
    name: 'SLACK_TOKEN',
    pattern: /\bxox[abeoprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com\/services\/\w+\/\w+\/\w{16,}/,
  },
  { kind: 'a Google API key', name: 'GOOGLE_API_KEY', pattern: /\bAIza[\w-]{35}/ },
  { kind: 'a Stripe key', name: 'STRIPE_API_KEY', pattern: /\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}/ },
  { kind: 'an npm token', name: 'NPM_TOKEN', pattern: /\bnpm_[A-Za-z0-9]{36}\b/ },
  { kind: 'a token of this platform', name: 'ASTRAML_TOKEN', pattern: /\bastraml_[\w-]{40,}/ },
  { kind: 'a private key', name: 'PRIVATE_KEY', pattern: /-----BEGIN [A-Z ]{0,30}PRIVATE KEY/ },
  {
    kind: 'a JSON Web Token',
    name: 'ACCESS_TOKEN',
    // Begins where a run of its characters begins, so that each run is read once and not from each `eyJ` in it.
    pattern: /(?<![\w-])(?=[\w-]{13,}\.eyJ[\w-]{10,}\.[\w-]{10})[\w-]*?\beyJ[\w-]{10,}/,
  },
  {
    kind: 'a signed URL',
    name: 'SIGNED_URL',
    pattern: /[?&](?:X-Amz-Signature|X-Goog-Signature|sig)=[A-Za-z0-9%/+]{20,}/i,
  },
  {
    kind: 'a URL with a password',
    name: 'SERVICE_URL',
    // Not what a shell or a template would fill in.
    pattern: /\b[a-z][a-z0-9+.-]{1,30}:\/\/[^\s/:@?#'"]{0,250}:(?![${<%*]|x+@)[^\s/@'"]{1,250}@/i,
  },
];

const bearer = /\b(?:Bearer|Basic)\s{1,3}([\w.~+/=-]{16,})/i;
const assignment = /(?:^|[\s"'`;,?&{([])-{0,2}([A-Za-z][\w.-]{0,99}?)["']?\s{0,3}[=:]\s{0,3}["']?([^\s"'`;,&]{6,})/g;
const flag = /^-{1,2}([A-Za-z][\w.-]{0,99})$/;

/** All patterns that meet whole texts; a test holds that each is linear. */
export const credentialPatterns: readonly RegExp[] = [...shapes.map(({ pattern }) => pattern), bearer, assignment];

/** Words that say, as the end of a name, that its value is a secret whatever it looks like. */
const secretNames =
  /(?:password|passwd|passphrase|secret|credentials?|apikey|secretkey|privatekey|accesstoken|authtoken)$/;
const secretKeys = /^(?:api|access|account|auth|encryption|license|master|private|secret|signing|storage|write)$/;
/** Keys of data, and names of tokens of text: never secrets. */
const plainNames =
  /^(?:bos|cache|cls|column|dict|eos|feature|foreign|group|idempotency|image|index|join|label|lookup|mask|order|pad|partition|primary|public|sep|sort|special|state|stop|unk)$/;

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
  for (const key of Object.keys(value)) {
    const item = (value as Record<string, unknown>)[key];
    if (isList) searchField(key, item, flagBefore(value, Number(key), item) ?? name, path, issues);
    else if (isCredential(key)) issues.push(...credentialKey(key, path));
    else searchField(key, item, key, path, issues);
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

/** What the text holds, if it looks like a credential; its time grows with the length of the text at most. */
export function credentialIn(whole: string, name: string): Found | null {
  const text = whole.slice(0, maxSearched);
  const shape = shapeIn(text);
  if (shape) return shape;
  if (looksSecret(name, text)) return { kind: 'a credential', name: variableName(name) };
  const [, token = ''] = bearer.exec(text) ?? [];
  if (isRandom(token)) return { kind: 'a bearer token', name: 'ACCESS_TOKEN' };
  for (const [, called = '', value = ''] of text.matchAll(assignment)) {
    if (looksSecret(called, value)) return { kind: 'a credential', name: variableName(called) };
  }
  return null;
}

/** A placeholder, e.g. `hf_xxxx…`, has few different characters. */
function shapeIn(whole: string): Shape | null {
  if (whole.length < minShape) return null;
  const text = whole.slice(0, maxSearched);
  return (
    shapes.find(({ pattern, kind }) => {
      const [found] = pattern.exec(text) ?? [];
      return found !== undefined && (kind === 'a private key' || new Set(found).size > 8);
    }) ?? null
  );
}

/** A name as lower-case words: `wandbApiKey` and `WANDB_API_KEY` are wandb, api, key. */
function wordsOf(name: string): string[] {
  const spaced = name.replace(/([a-z0-9])([A-Z])/g, '$1 $2').toLowerCase();
  return spaced.split(/[^a-z]+/).filter((word) => word !== '');
}

function looksSecret(name: string, value: string): boolean {
  const words = wordsOf(name);
  const [before = '', last = ''] = [words.at(-2), words.at(-1)];
  if (last === '' || isPlaceholder(value)) return false;
  if (secretNames.test(last) || (last === 'key' && secretKeys.test(before))) return isPassword(value);
  if ((last !== 'key' && last !== 'token') || plainNames.test(before)) return false;
  const isId = /^[a-z]+_[0-9a-z]{26}$|^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value);
  return !isId && isRandom(value);
}

/** A reference to a secret kept elsewhere, a path, or what a shell or a template fills in. */
function isPlaceholder(value: string): boolean {
  return (
    /\s|^[$<{%[~./]|^(?:arn|vault|secret|file|env):|^\w[\w+.-]*:\/\//i.test(value) || new Set(value).size < 4 // e.g. ******
  );
}

/** Under a name that says so: eight characters that are no words. */
function isPassword(value: string): boolean {
  if (value.length < 8) return false;
  const isWords = value.split(/[-_.:/]/).every((part) => /^(?:[A-Za-z]?[a-z]{0,14}|[A-Z]{1,15}|v?\d{1,4})$/.test(part));
  return !isWords;
}

/**
 * A run of sixteen letters and digits at least that changes often between lower case, upper case and digits: a quarter of
 * the neighbours of random text in base 64, 62 or 16 do at least, words and versions seldom do.
 */
function isRandom(value: string): boolean {
  return (value.match(/[A-Za-z0-9+]{16,}/g) ?? []).some((run) => {
    let [changes, digits] = [0, 0];
    for (let index = 0, before = 0; index < run.length; index++) {
      const kind = kindOfCharacter(run.charCodeAt(index));
      if (index > 0 && kind !== before) changes++;
      if (kind === 0) digits++;
      before = kind;
    }
    return digits > 0 && changes / (run.length - 1) >= 0.25;
  });
}

/** 0 for a digit, 1 for a lower-case letter, 2 for any other. */
function kindOfCharacter(code: number): number {
  if (code >= 48 && code <= 57) return 0;
  return code >= 97 && code <= 122 ? 1 : 2;
}

function issueAt(path: readonly string[], { kind, name: usual }: Found, name: string): Issue {
  const words = wordsOf(name);
  const isNamed = /^(?:key|token|url)$/.test(words.at(-1) ?? '') || secretNames.test(words.at(-1) ?? '');
  const secret = isNamed ? variableName(name) : usual;
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
