// What a job spec has against the rules of its project: every violation, each with its own sentence. Pure; nothing is
// ever changed to make a spec fit.
import { type PolicyRule, type PolicyViolation, quote, Refusal } from '../errors.ts';
import { canonical } from '../replay/replay.ts';
import { atInput } from '../spec/input.ts';
import { stepProbability } from '../spec/path.ts';
import { type Layer, type LayerValue, type ResolvedValue, resolve, splitPath, valueSources } from '../spec/resolve.ts';
import type { Warning } from '../spec/spec.ts';

type Kind = PolicyViolation['kind'];
/** A value that a rule is about, and whether the request set it itself. */
type Place = { path: string; value: unknown; requested: boolean };

const maxShown = 10;

/** Violations in the order of the rules. An absent or null value violates nothing but `required`. */
export function checkRules(
  rules: readonly PolicyRule[],
  request: Layer,
  resolved: readonly ResolvedValue[],
): PolicyViolation[] {
  return rules.flatMap((rule) =>
    placesOf(rule.path, request, resolved).flatMap(({ path, value, requested }) => {
      const kinds: Kind[] = rule.required && !requested ? ['REQUIRED'] : brokenLimits(rule, value);
      return kinds.map((kind): PolicyViolation => {
        const message = rule.message ?? sentence(kind, path, value, rule);
        return { kind, path, value: value ?? null, message, rule };
      });
    }),
  );
}

/**
 * Violations that rules would find in a job that was resolved with others: what its request and the weaker layers gave
 * stays, the defaults of its policy are those of these rules.
 */
export function checkAgain(rules: readonly PolicyRule[], resolved: readonly ResolvedValue[]): PolicyViolation[] {
  const layers = new Map(valueSources.map((source) => [source, new Map<string, LayerValue>()]));
  for (const { path, source, value, overrides } of resolved) {
    for (const given of [{ source, value }, ...overrides]) layers.get(given.source)?.set(path, given);
  }
  layers.set('POLICY', new Map(rules.filter((rule) => rule.hasDefault).map(toDefault)));
  const request = new Map([...(layers.get('SCHEDULE') ?? []), ...(layers.get('REQUEST') ?? [])]);
  return checkRules(rules, request, resolve([...layers.values()]));
}

function toDefault({ path, default: value }: PolicyRule): [string, LayerValue] {
  return [path, { source: 'POLICY', value }];
}

/** One place for a path; for the probability of steps, one for each step. */
function placesOf(path: string, request: Layer, resolved: readonly ResolvedValue[]): Place[] {
  const valueOf = (wanted: string) => resolved.find((found) => found.path === wanted)?.value;
  if (path !== stepProbability) {
    const requested = request.get(path)?.value ?? null;
    return [{ path, value: valueOf(path), requested: requested !== null }];
  }
  const steps = (valueOf('augmentation') ?? []) as { probability?: number }[];
  return steps.map(({ probability }, index) => ({
    path: `augmentation.${index}.probability`,
    value: probability ?? valueOf(path),
    requested: request.has('augmentation') && probability !== undefined,
  }));
}

/** The limits of a rule that the value breaks. Where a number is bounded, nothing else than a number will do. */
export function brokenLimits({ min, max, allowed }: PolicyRule, value: unknown): Kind[] {
  if (value === null || value === undefined) return [];
  const broken: Kind[] = [];
  if (min !== null && !(typeof value === 'number' && value >= min)) broken.push('MIN');
  if (max !== null && !(typeof value === 'number' && value <= max)) broken.push('MAX');
  const wanted = canonical(value);
  if (allowed && !allowed.some((item) => canonical(item) === wanted)) broken.push('ALLOWED');
  return broken;
}

function sentence(kind: Kind, path: string, value: unknown, { min, max, allowed }: PolicyRule): string {
  const name = nameOf(path);
  if (kind === 'REQUIRED') return `${name} must be set in the job spec: the project requires it.`;
  const found = `${name} ${show(value)} is`;
  if (kind === 'ALLOWED') return `${found} not among the values that the project allows: ${showAll(allowed ?? [])}.`;
  const bound = kind === 'MIN' ? `the project's minimum ${min}` : `the project's maximum ${max}`;
  if (typeof value !== 'number') return `${found} not a number, as ${bound} asks for.`;
  return `${found} ${kind === 'MIN' ? 'below' : 'above'} ${bound}.`;
}

/** Violations of rules that refuse, and those of rules that only warn, as advice; `at` is where the caller sent the spec. */
export function sortViolations(
  violations: readonly PolicyViolation[],
  at: readonly string[],
): { denied: PolicyViolation[]; warnings: Warning[] } {
  const warned = violations.filter(({ rule }) => rule.enforcement === 'WARN');
  const warnings = warned.map((violation) => ({
    code: 'POLICY_WARNING',
    message: violation.message,
    path: inputPath(violation, at),
  }));
  return { denied: violations.filter(({ rule }) => rule.enforcement === 'DENY'), warnings };
}

function inputPath({ path, rule }: PolicyViolation, at: readonly string[]): string[] {
  const keys = rule.path === stepProbability ? path.split('.') : splitPath(path);
  return atInput({ code: 'NOT_ALLOWED', message: '', path: keys }, at).path;
}

/** All violations of a spec as one refusal; there must be one. `at` is where the caller sent the spec. */
export function policyViolated(violations: PolicyViolation[], at: readonly string[]): Refusal {
  const [first] = violations;
  if (!first) throw new Error('policyViolated() needs a violation');
  const message =
    violations.length === 1
      ? first.message
      : `${violations.length} violations of the project's policy, the first: ${first.message}`;
  return new Refusal('POLICY_VIOLATION', message, {
    violations,
    path: inputPath(first, at),
    hint: hintOf(first),
  });
}

function hintOf({ path, rule: { min, max, allowed, required } }: PolicyViolation): string {
  const limits = [
    ...(min === null ? [] : [`at least ${min}`]),
    ...(max === null ? [] : [`at most ${max}`]),
    ...(allowed ? [allowed.length === 1 ? showAll(allowed) : `one of ${showAll(allowed)}`] : []),
  ];
  const must = required ? ' in the job spec' : '';
  return limits.length > 0 ? `Set ${path}${must} to ${limits.join(', ')}.` : `Set ${path}${must}.`;
}

/** `epochs` of `hyperparams.epochs`. */
function nameOf(path: string): string {
  return splitPath(path).at(-1) ?? path;
}

function show(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return typeof value === 'string' ? quote(text) : quote(text).slice(1, -1);
}

function showAll(values: readonly unknown[]): string {
  const shown = values.slice(0, maxShown).map(show).join(', ');
  return values.length > maxShown ? `${shown} and ${values.length - maxShown} more` : shown;
}
