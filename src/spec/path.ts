// Paths of a job spec whose values come from layers (request, policy, defaults): a rule of a policy
// can name only these.
import { z } from 'zod';
import { closest } from '../closest.ts';
import type { Issue } from '../errors.ts';
import { containers, notLayered, setAt, splitPath } from './resolve.ts';
import { specShape } from './shape.ts';
import { parseSpec } from './spec.ts';

/**
 * Kind of the value at a path; `free` for hyperparameters that the platform does not know, which
 * may be anything.
 */
export type PathKind = 'number' | 'other' | 'free';

const extras = 'hyperparams.';
/** Path of the probability of augmentation steps that give none themselves. */
export const stepProbability = 'augmentation.probability';
const kinds = new Map<string, PathKind>([...pathsOf(specShape, ''), [stepProbability, 'number']]);

function pathsOf(shape: Readonly<Record<string, z.core.$ZodType>>, prefix: string): [string, PathKind][] {
  return Object.entries(shape).flatMap(([key, optional]): [string, PathKind][] => {
    const path = prefix + key;
    const type = optional instanceof z.ZodOptional ? optional.unwrap() : optional;
    if (notLayered.has(path)) return [];
    if (containers.has(path) && type instanceof z.ZodObject) return pathsOf(type.shape, `${path}.`);
    return [[path, type instanceof z.ZodNumber ? 'number' : 'other']];
  });
}

/** Returns the kind of the value at the path; null when layers cannot give it. */
export function kindOfPath(path: string): PathKind | null {
  const kind = kinds.get(path);
  if (kind) return kind;
  if (containers.has(path) || !path.startsWith(extras) || path.startsWith('hyperparams.early_stopping.')) return null;
  if (path === extras || path === 'hyperparams.__proto__' || isRespelt(path)) return null;
  return 'free';
}

/**
 * Whether the path is a known one in another spelling, e.g. `hyperparams.lrScheduler`: a rule about
 * it would never apply.
 */
function isRespelt(path: string): boolean {
  const plain = (text: string) => text.toLowerCase().replace(/[^a-z0-9.]/g, '');
  return [...kinds.keys()].some((name) => plain(name) === plain(path));
}

/** Paths that the platform knows and that layers can give. */
export const layeredPaths: readonly string[] = [...kinds.keys()];

/** Hint for a user who names a path that does not exist. */
export function pathHint(path: string): string {
  if (notLayered.has(path)) return `${path} belongs to each job.`;
  if (containers.has(path)) {
    return `Name a path inside of it: ${layeredPaths.filter((name) => name.startsWith(`${path}.`)).join(', ')}.`;
  }
  const near = nearestPath(path);
  return near ? `Did you mean "${near}"?` : `Known: ${layeredPaths.join(', ')}, and hyperparams.<any other name>.`;
}

/** Returns the known path that was probably meant; undefined when none is close enough. */
export function nearestPath(path: string): string | undefined {
  const names = layeredPaths;
  const near =
    closest(path, names) ??
    names.find((name) => name.endsWith(`.${path}`)) ??
    closest(
      path.slice(path.lastIndexOf('.') + 1),
      names.map((name) => name.slice(name.lastIndexOf('.') + 1)),
    );
  return names.find((name) => name === near || name.endsWith(`.${near}`));
}

/**
 * Reads a value as a job spec would hold it at the path, without inner nulls. `problems` are
 * sentences about it, none for a value that a job may ask for; `issues` are the same with codes.
 */
export function readValue(path: string, value: unknown): { value: unknown; problems: string[]; issues: Issue[] } {
  const sent: Record<string, unknown> = { project_id: 'p-any', model: 'any', dataset: 'any' };
  if (path === stepProbability) sent['augmentation'] = [{ op: 'any', probability: value }];
  else setAt(sent, path, value);
  const parsed = parseSpec(sent);
  const issues = parsed.issues.map((issue) => ({
    ...issue,
    message: issue.message.replace('augmentation.0.', 'augmentation.'),
  }));
  const problems = issues.map(({ message }) => message);
  const { spec } = parsed;
  if (!spec || path === stepProbability) return { value, problems, issues };
  const read = splitPath(path).reduce<unknown>((inner, key) => Object(inner)[key] as unknown, spec);
  return { value: read, problems, issues };
}
