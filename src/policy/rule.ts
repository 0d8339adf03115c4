// Checks the rules that a caller sends, with every problem of all of them at once, and turns them
// into rules to store. A stored rule can always be obeyed: its default lies within its limits and
// is a value that a job spec may hold.
import { invalid, type Issue, type PolicyRule, quote } from '../errors.ts';
import { findCredentials, isCredential } from '../spec/credential.ts';
import { kindOfPath, pathHint, readValue } from '../spec/path.ts';
import { giveWay } from '../turns.ts';
import { brokenLimits } from './check.ts';

/** A rule as a caller sends it. `default: undefined` means none; elsewhere null means unset. */
export type RuleInput = {
  path: string;
  default?: unknown;
  min?: number | null;
  max?: number | null;
  allowed?: unknown[] | null;
  required?: boolean | null;
  enforcement?: PolicyRule['enforcement'] | null;
  message?: string | null;
};

const maxRules = 200;
const maxAllowed = 100;
const maxMessage = 500;
const maxPath = 250;
/**
 * Upper bound of the JSON of a default, and of all allowed values of a rule together, in
 * characters.
 */
const maxJson = 10_000;

/**
 * Returns the rules ordered by path. Throws INVALID_INPUT with every problem; `at` is the path of
 * the list. It gives way to other work between two rules: each allowed value is parsed as part of a
 * job spec, and 200 rules of 100 values take half a second.
 */
export async function readRules(inputs: readonly RuleInput[], at: readonly string[]): Promise<PolicyRule[]> {
  if (inputs.length > maxRules) {
    const message = `rules has ${inputs.length} entries; ${maxRules} are the most.`;
    throw invalid([{ code: 'OUT_OF_RANGE', path: [...at], message }]);
  }
  const paths = inputs.map((input) => input.path);
  const issues: Issue[] = [];
  const rules: PolicyRule[] = [];
  for (const [index, input] of inputs.entries()) {
    const turn = giveWay();
    if (turn) await turn;
    const rulePath = [...at, String(index)];
    const credentialIssues = openCredentials(input, rulePath);
    if (credentialIssues.length > 0) {
      issues.push(...credentialIssues); // no other issue of the rule, which would repeat it
      continue;
    }
    const report = reporter(issues, input.path, rulePath);
    if (paths.indexOf(input.path) < index) {
      report('NOT_ALLOWED', 'path', 'has a rule already.', 'Make one rule of the two.');
    }
    rules.push(readRule(input, report));
  }
  if (issues.length > 0) throw invalid(issues);
  return rules.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Issues for credentials in a rule: its values are shown to every reader of a job. */
function openCredentials(input: RuleInput, at: string[]): Issue[] {
  if (isCredential(input.path)) return findCredentials({ path: input.path }, at);
  return [
    ...findCredentials(input.default, [...at, 'default'], input.path),
    ...findCredentials(input.allowed, [...at, 'allowed'], input.path),
    ...findCredentials(input.message, [...at, 'message']),
  ];
}

/** Adds an issue of a field. The message is the path of the rule followed by `rest`. */
type Report = (code: Issue['code'], field: string, rest: string, hint?: string) => void;

function reporter(issues: Issue[], rulePath: string, at: string[]): Report {
  const isKnown = kindOfPath(rulePath) !== null && rulePath.length <= 80;
  const shown = isKnown ? rulePath : quote(rulePath);
  return (code, field, rest, hint) => {
    const path = [...at, ...field.split('.')];
    issues.push({ code, path, message: `${shown} ${rest}`, hint, ...(isKnown ? { specPath: rulePath } : {}) });
  };
}

function readRule(input: RuleInput, report: Report): PolicyRule {
  const rule: PolicyRule = {
    path: input.path,
    hasDefault: input.default !== undefined,
    default: input.default ?? null,
    min: input.min ?? null,
    max: input.max ?? null,
    allowed: input.allowed ?? null,
    required: input.required ?? false,
    enforcement: input.enforcement ?? 'DENY',
    message: input.message ?? null,
  };
  if (input.path.length > maxPath || !isText(input.path)) {
    report('MALFORMED', 'path', `is no path: it takes ${maxPath} characters at most, without NUL.`);
    return rule;
  }
  if (kindOfPath(input.path) === null) {
    report('NOT_ALLOWED', 'path', 'is no path of a job spec that a policy can be about.', pathHint(input.path));
    return rule;
  }
  if (rule.message !== null && (rule.message.length < 1 || rule.message.length > maxMessage || !isText(rule.message))) {
    report('OUT_OF_RANGE', 'message', `has a message that is empty or longer than ${maxMessage} characters.`);
  }
  readBounds(rule, report);
  readAllowed(rule, report);
  readDefault(rule, report);
  if (!rule.hasDefault && rule.min === null && rule.max === null && !rule.allowed && !rule.required) {
    report('REQUIRED', 'path', 'has a rule that says nothing.', 'Give it default, min, max, allowed or required.');
  }
  return rule;
}

function readBounds({ path, min, max }: PolicyRule, report: Report): void {
  for (const [field, bound] of Object.entries({ min, max })) {
    if (bound === null) continue;
    if (!Number.isFinite(bound)) report('WRONG_TYPE', field, `has a ${field} that is no finite number.`);
    if (kindOfPath(path) === 'other') {
      report('NOT_ALLOWED', field, `takes no ${field}: its values are no numbers.`, 'Use allowed.');
    }
  }
  if (min !== null && max !== null && min > max)
    report('OUT_OF_RANGE', 'min', `has a min ${min} above its max ${max}.`);
}

/**
 * Checks the allowed values, and replaces each by its form in a job spec, so that the two compare
 * equal.
 */
function readAllowed(rule: PolicyRule, report: Report): void {
  const { allowed } = rule;
  if (!allowed) return;
  if (allowed.length === 0 || allowed.length > maxAllowed) {
    report('OUT_OF_RANGE', 'allowed', `takes 1 to ${maxAllowed} allowed values.`);
    return;
  }
  if (isTooLong(allowed)) {
    report('OUT_OF_RANGE', 'allowed', `has allowed values of more than ${maxJson} characters of JSON.`);
    return;
  }
  rule.allowed = allowed.map((value, index) => {
    const field = `allowed.${index}`;
    if (value === null) {
      report('NOT_ALLOWED', field, 'has null among its allowed values: null means unset.', 'Leave it out.');
      return value;
    }
    const read = readValue(rule.path, value);
    for (const problem of read.problems) report('NOT_ALLOWED', field, `cannot have an allowed value: ${problem}`);
    const isOutside = brokenLimits({ ...rule, allowed: null }, read.value).length > 0;
    if (isOutside) report('OUT_OF_RANGE', field, 'has an allowed value outside of its min and max.');
    return read.value;
  });
}

function readDefault(rule: PolicyRule, report: Report): void {
  if (!rule.hasDefault) return;
  if (rule.path === 'model' || rule.path === 'dataset') {
    report('NOT_ALLOWED', 'default', 'takes no default: every job names its own.', 'Use allowed to limit it.');
    return;
  }
  if (rule.default === null) {
    if (kindOfPath(rule.path) === 'free') return; // the script gets null
    report('NOT_ALLOWED', 'default', 'takes no default of null: null means unset.', 'Leave default out for none.');
    return;
  }
  if (isTooLong(rule.default)) {
    report('OUT_OF_RANGE', 'default', `has a default of more than ${maxJson} characters of JSON.`);
    return;
  }
  const { value, problems } = readValue(rule.path, rule.default);
  for (const problem of problems) report('NOT_ALLOWED', 'default', `cannot have this default: ${problem}`);
  rule.default = value;
  const broken = problems.length > 0 ? [] : brokenLimits(rule, value);
  const limits = broken.map((kind) => kind.toLowerCase()).join(' and ');
  if (limits) report('OUT_OF_RANGE', 'default', `has a default that its own ${limits} forbids.`);
}

function isTooLong(value: unknown): boolean {
  return JSON.stringify(value).length > maxJson;
}

function isText(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed();
}
