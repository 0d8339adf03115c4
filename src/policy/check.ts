// Checks a job spec against the rules of its project and returns every violation, each with a
// sentence. Pure; a spec is never changed to make it fit.
import { type PolicyRule, type PolicyViolation, quote, Refusal } from '../errors.ts';
import { canonical } from '../replay/replay.ts';
import { atInput } from '../spec/input.ts';
import { stepProbability } from '../spec/path.ts';
import { type Layer, type LayerValue, type ResolvedValue, resolve, splitPath, valueSources } from '../spec/resolve.ts';
import type { Warning } from '../spec/spec.ts';

type Kind = PolicyViolation['kind'];
/** A value that a rule is about. `requested`: the request set it itself. */
type Place = { path: string; value: unknown; requested: boolean };

const maxShown = 10;

/**
 * Returns violations in the order of the rules. An absent or null value violates only `required`.
 */
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
 * Returns the violations that other rules would find in a job that is resolved already. The values
 * of its request and of weaker layers stay; the policy's defaults are replaced by those of these
 * rules.
 */
export function checkAgain(rules: readonly PolicyRule[], resolved: readonly ResolvedValue[]): PolicyViolation[] {
  const layers = new Map(valueSources.map((source) => [source, new Map<string, LayerValue>()]));
  for (const { path, source, value, overrides } of resolved) {
    for (const layerValue of [{ source, value }, ...overrides]) layers.get(layerValue.source)?.set(path, layerValue);
  }
  layers.set('POLICY', new Map(rules.filter((rule) => rule.hasDefault).map(toDefault)));
  const request = new Map([...(layers.get('SCHEDULE') ?? []), ...(layers.get('REQUEST') ?? [])]);
  return checkRules(rules, request, resolve([...layers.values()]));
}

function toDefault({ path, default: value }: PolicyRule): [string, LayerValue] {
  return [path, { source: 'POLICY', value }];
}

/**
 * Returns the values that a rule is about: one for a path, except one for each augmentation step
 * for their probability.
 */
function placesOf(path: string, request: Layer, resolved: readonly ResolvedValue[]): Place[] {
  const valueOf = (valuePath: string) => resolved.find((entry) => entry.path === valuePath)?.value;
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

/**
 * Returns the limits of a rule that the value breaks. Under a bound, any value but a number breaks
 * it.
 */
export function brokenLimits({ min, max, allowed }: PolicyRule, value: unknown): Kind[] {
  if (value === null || value === undefined) return [];
  const broken: Kind[] = [];
  if (min !== null && !(typeof value === 'number' && value >= min)) broken.push('MIN');
  if (max !== null && !(typeof value === 'number' && value <= max)) broken.push('MAX');
  const canonicalValue = canonical(value);
  if (allowed && !allowed.some((item) => canonical(item) === canonicalValue)) broken.push('ALLOWED');
  return broken;
}

function sentence(kind: Kind, path: string, value: unknown, { min, max, allowed }: PolicyRule): string {
  const name = nameOf(path);
  if (kind === 'REQUIRED') return `${name} must be set in the job spec: the project requires it.`;
  const start = `${name} ${show(value)} is`;
  if (kind === 'ALLOWED') return `${start} not among the values that the project allows: ${showAll(allowed ?? [])}.`;
  const bound = kind === 'MIN' ? `the project's minimum ${min}` : `the project's maximum ${max}`;
  if (typeof value !== 'number') return `${start} not a number, as ${bound} asks for.`;
  return `${start} ${kind === 'MIN' ? 'below' : 'above'} ${bound}.`;
}

/**
 * Splits violations into those of rules that refuse, and warnings of rules that only warn. `at` is
 * the path at which the caller sent the spec.
 */
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

/**
 * Makes one refusal of all violations of a spec; there must be at least one. `at` is the path at
 * which the caller sent the spec.
 */
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

/** Returns the last part of a path, e.g. `epochs` of `hyperparams.epochs`. */
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
