// Resolves layers into effective values, each with its source: the request or a schedule's
// template, else the policy, else the project, else a versioned default. Pure: the same layers give
// the same job on every gateway, for ever.
import type { EffectiveSpec, Spec } from './shape.ts';

export const valueSources = ['REQUEST', 'SCHEDULE', 'POLICY', 'PROJECT', 'DEFAULT', 'PLATFORM'] as const;
/** Source of an effective value, strongest first. */
export type ValueSource = (typeof valueSources)[number];

export type LayerValue = { source: ValueSource; value: unknown };
export type ResolvedValue = LayerValue & {
  /** Dotted path in the job spec file, e.g. `hyperparams.batch_size`. */
  path: string;
  /** Values of the weaker layers, strongest first. */
  overrides: LayerValue[];
};

/** Values by path, with the source of each. */
export type Layer = ReadonlyMap<string, LayerValue>;

/** Fields that describe a submission and come from no layer; training does not depend on them. */
export const notLayered: ReadonlySet<string> = new Set([
  'project_id',
  'defaults_version',
  'name',
  'tags',
  'notes',
  'env',
]);
/** Objects whose members have paths of their own; any other value is one leaf. */
export const containers: ReadonlySet<string> = new Set([
  'hyperparams',
  'hyperparams.early_stopping',
  'resources',
  'metrics',
  'logs',
]);

/** Makes a layer of a spec, with one entry for each leaf. */
export function layerOf(spec: Partial<Spec> | Record<string, unknown>, source: ValueSource): Layer {
  const layer = new Map<string, LayerValue>();
  const walk = (value: object, prefix: string) => {
    for (const [key, item] of Object.entries(value) as [string, unknown][]) {
      const path = prefix + key;
      if (item === undefined || notLayered.has(path)) continue;
      if (containers.has(path)) walk(item as object, `${path}.`);
      else layer.set(path, { source, value: item });
    }
  };
  walk(spec, '');
  return layer;
}

/** Merges layers, strongest first, into values ordered by path. */
export function overlay(layers: readonly Layer[]): ResolvedValue[] {
  const paths = new Set(layers.flatMap((layer) => [...layer.keys()]));
  return [...paths].sort().map((path): ResolvedValue => {
    const [effective, ...overrides] = layers.flatMap((layer) => layer.get(path) ?? []);
    if (!effective) throw new Error(`no layer has ${path}`);
    return { path, ...effective, overrides };
  });
}

/** Effective values of a job, ordered by path. `layers` come strongest first. */
export function resolve(layers: readonly Layer[]): ResolvedValue[] {
  const resolved = overlay(layers);
  const augmented = resolved.some(({ path, value }) => path === 'augmentation' && (value as unknown[]).length > 0);
  return augmented ? resolved : resolved.filter(({ path }) => !path.startsWith('augmentation.'));
}

/** Applies changes to values that were resolved earlier; unchanged values keep their source. */
export function withChanges(resolved: readonly ResolvedValue[], changes: Layer): ResolvedValue[] {
  const before = new Map(resolved.map((value) => [value.path, value]));
  const paths = new Set([...before.keys(), ...changes.keys()]);
  return [...paths].sort().flatMap((path): ResolvedValue[] => {
    const [earlier, changed] = [before.get(path), changes.get(path)];
    if (!changed) return earlier ? [earlier] : [];
    const { source, value, overrides = [] } = earlier ?? {};
    const weaker = source === undefined || source === changed.source ? [] : [{ source, value }];
    return [{ path, ...changed, overrides: [...weaker, ...overrides] }];
  });
}

/**
 * Returns the effective spec: resolved values in the shape of the job spec file, without absent
 * ones.
 */
export function effectiveSpec(resolved: readonly ResolvedValue[], spec: Spec): EffectiveSpec {
  const effective: Record<string, unknown> = { project_id: spec.project_id };
  for (const { path, value } of resolved) {
    if (path.startsWith('augmentation.')) continue; // used for the operations below
    setAt(effective, path, value);
  }
  const probability = resolved.find(({ path }) => path === 'augmentation.probability')?.value;
  if (Array.isArray(effective['augmentation'])) {
    effective['augmentation'] = (effective['augmentation'] as object[]).map((step) => ({
      probability,
      params: {},
      ...step,
    }));
  }
  if (spec.env) effective['env'] = spec.env.map(({ name, from }) => ({ name, from }));
  return effective as EffectiveSpec;
}

/** Sets the value at a path of a job spec. */
export function setAt(target: Record<string, unknown>, path: string, value: unknown): void {
  const keys = splitPath(path);
  const last = keys.pop() ?? path;
  let inner = target;
  for (const key of keys) inner = (inner[key] ??= {}) as Record<string, unknown>;
  inner[last] = value;
}

/**
 * Splits a path into keys. Names of hyperparameters may hold dots, so only the containers are split
 * off.
 */
export function splitPath(path: string): string[] {
  const container = [...containers]
    .filter((name) => path.startsWith(`${name}.`))
    .sort((a, b) => b.length - a.length)[0];
  return container ? [...container.split('.'), path.slice(container.length + 1)] : [path];
}

/**
 * Returns the part of an effective spec on which training depends: equal parts mean the same
 * training.
 */
export function trainingPart(effective: EffectiveSpec): Partial<EffectiveSpec> {
  const keys = ['model', 'dataset', 'hyperparams', 'augmentation', 'resources', 'command', 'env'] as const;
  return Object.fromEntries(keys.flatMap((key) => (effective[key] === undefined ? [] : [[key, effective[key]]])));
}
