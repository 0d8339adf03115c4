// Layers → effective values, each with its source: request or a schedule's template, else policy, else project, else versioned default. Pure: the
// same layers give the same job on every gateway and for ever.
import type { EffectiveSpec, Spec } from './shape.ts';

export const valueSources = ['REQUEST', 'SCHEDULE', 'POLICY', 'PROJECT', 'DEFAULT', 'PLATFORM'] as const;
/** Where an effective value came from, strongest first. */
export type ValueSource = (typeof valueSources)[number];

export type LayerValue = { source: ValueSource; value: unknown };
export type ResolvedValue = LayerValue & {
  /** Dotted path in the job spec file, e.g. `hyperparams.batch_size`. */
  path: string;
  /** What the weaker layers would have given, strongest first. */
  overrides: LayerValue[];
};

/** Values by path, with the source of each. */
export type Layer = ReadonlyMap<string, LayerValue>;

/** What describes a submission, but is no value that layers can give or that training depends on. */
export const notLayered: ReadonlySet<string> = new Set([
  'project_id',
  'defaults_version',
  'name',
  'tags',
  'notes',
  'env',
]);
/** Objects with paths of their own inside; any other value is one leaf. */
export const containers: ReadonlySet<string> = new Set([
  'hyperparams',
  'hyperparams.early_stopping',
  'resources',
  'metrics',
  'logs',
]);

/** A layer from a spec: one entry for each leaf. */
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

/** What layers give together, ordered by path. `layers` come strongest first. */
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

/** Values as they were resolved once, with a change over some of them: what is not changed keeps its source. */
export function withChanges(resolved: readonly ResolvedValue[], changes: Layer): ResolvedValue[] {
  const before = new Map(resolved.map((value) => [value.path, value]));
  const paths = new Set([...before.keys(), ...changes.keys()]);
  return [...paths].sort().flatMap((path): ResolvedValue[] => {
    const [known, changed] = [before.get(path), changes.get(path)];
    if (!changed) return known ? [known] : [];
    const { source, value, overrides = [] } = known ?? {};
    const weaker = source === undefined || source === changed.source ? [] : [{ source, value }];
    return [{ path, ...changed, overrides: [...weaker, ...overrides] }];
  });
}

/** The effective spec: resolved values in the shape of the job spec file, what is absent left out. */
export function effectiveSpec(resolved: readonly ResolvedValue[], spec: Spec): EffectiveSpec {
  const effective: Record<string, unknown> = { project_id: spec.project_id };
  for (const { path, value } of resolved) {
    if (path.startsWith('augmentation.')) continue; // fills in the operations below
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

/** Keys of a path. Names of hyperparameters hold dots too: only the containers split it. */
export function splitPath(path: string): string[] {
  const container = [...containers]
    .filter((name) => path.startsWith(`${name}.`))
    .sort((a, b) => b.length - a.length)[0];
  return container ? [...container.split('.'), path.slice(container.length + 1)] : [path];
}

/** The part of an effective spec that training depends on: equal parts mean the same training. */
export function trainingPart(effective: EffectiveSpec): Partial<EffectiveSpec> {
  const keys = ['model', 'dataset', 'hyperparams', 'augmentation', 'resources', 'command', 'env'] as const;
  return Object.fromEntries(keys.flatMap((key) => (effective[key] === undefined ? [] : [[key, effective[key]]])));
}
