// The paths of a job spec that layers can give: what a rule of a policy can be about.
import { z } from 'zod';
import { closest } from '../errors.ts';
import { containers, notLayered, setAt, splitPath } from './resolve.ts';
import { parseSpec, specShape } from './spec.ts';

/** What stands at a path; `free` for hyperparameters of the script, which may be anything. */
export type PathKind = 'number' | 'other' | 'free';

const extras = 'hyperparams.';
/** Fills in what a step of the augmentation leaves out. */
export const stepProbability = 'augmentation.probability';
const known = new Map<string, PathKind>([...pathsOf(specShape, ''), [stepProbability, 'number']]);

function pathsOf(shape: Readonly<Record<string, z.core.$ZodType>>, prefix: string): [string, PathKind][] {
  return Object.entries(shape).flatMap(([key, optional]): [string, PathKind][] => {
    const path = prefix + key;
    const type = optional instanceof z.ZodOptional ? optional.unwrap() : optional;
    if (notLayered.has(path)) return [];
    if (containers.has(path) && type instanceof z.ZodObject) return pathsOf(type.shape, `${path}.`);
    return [[path, type instanceof z.ZodNumber ? 'number' : 'other']];
  });
}

/** What stands at the path; null when it is none that layers can give. */
export function kindOfPath(path: string): PathKind | null {
  const kind = known.get(path);
  if (kind) return kind;
  if (containers.has(path) || !path.startsWith(extras) || path.startsWith('hyperparams.early_stopping.')) return null;
  if (path === extras || path === 'hyperparams.__proto__' || isRespelt(path)) return null;
  return 'free';
}

/** A known path in another spelling, e.g. `hyperparams.lrScheduler`: a rule about it would never bind. */
function isRespelt(path: string): boolean {
  const plain = (text: string) => text.toLowerCase().replace(/[^a-z0-9.]/g, '');
  return [...known.keys()].some((name) => plain(name) === plain(path));
}

/** What to say to whoever names a path that is none. */
export function pathHint(path: string): string {
  if (notLayered.has(path)) return `${path} belongs to each job.`;
  if (containers.has(path)) {
    return `Name a path inside of it: ${[...known.keys()].filter((name) => name.startsWith(`${path}.`)).join(', ')}.`;
  }
  const names = [...known.keys()];
  const near =
    closest(path, names) ??
    names.find((name) => name.endsWith(`.${path}`)) ??
    closest(
      path.slice(path.lastIndexOf('.') + 1),
      names.map((name) => name.slice(name.lastIndexOf('.') + 1)),
    );
  const full = names.find((name) => name === near || name.endsWith(`.${near}`));
  return full ? `Did you mean "${full}"?` : `Known: ${names.join(', ')}, and hyperparams.<any other name>.`;
}

/**
 * The value as a job spec holds it at the path, without inner nulls, and what is wrong with it, a sentence each: none for
 * a value that a job may ask for.
 */
export function readValue(path: string, value: unknown): { value: unknown; problems: string[] } {
  const sent: Record<string, unknown> = { project_id: 'p-any', model: 'any', dataset: 'any' };
  if (path === stepProbability) sent['augmentation'] = [{ op: 'any', probability: value }];
  else setAt(sent, path, value);
  const { spec, issues } = parseSpec(sent);
  const problems = issues.map(({ message }) => message.replace('augmentation.0.', 'augmentation.'));
  if (!spec || path === stepProbability) return { value, problems };
  const read = splitPath(path).reduce<unknown>((inner, key) => Object(inner)[key] as unknown, spec);
  return { value: read, problems };
}
