// Job specs: what is accepted, every problem at once, and where each effective value comes from.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { defaultsLayer } from '../../src/defaults/defaults.ts';
import { builtinVersions } from '../../src/defaults/versions.ts';
import { hashOf } from '../../src/replay/replay.ts';
import { atInput, fromInput, shadowedExtras, toInput } from '../../src/spec/input.ts';
import { effectiveSpec, layerOf, resolve, trainingPart } from '../../src/spec/resolve.ts';
import type { Spec } from '../../src/spec/shape.ts';
import { parseSpec } from '../../src/spec/spec.ts';
import { documentedJson } from '../support/documents.ts';

const seed = JSON.parse(documentedJson) as Spec;
const [v21] = builtinVersions;
assert.ok(v21);

const least = { project_id: 'p-demo', model: 'm', dataset: 'd' };
const codesOf = (spec: object) => parseSpec(spec).issues.map(({ code, specPath }) => `${code} ${specPath}`);

suite('a spec', () => {
  test('of the document is accepted as it stands', () => {
    assert.deepEqual(parseSpec(seed), { spec: seed, issues: [], warnings: [] });
  });

  test('reports all of its problems at once, with path, code and hint', () => {
    const { spec, issues } = parseSpec({
      project_id: 'p-demo',
      modle: 'bert-base',
      dataset: 7,
      hyperparams: { lr: -1, batch_size: 1.5, early_stopping: { patience: 'x', monitr: 'loss', goal: 'MINIMISE' } },
      resources: { gpus: 2000, gpu: 1 },
      augmentation: [{ op: 'Shift', probability: 2 }],
      env: [{ name: '1X', from: { value: 'a' } }],
      command: [],
    });
    assert.equal(spec, null);
    const found = issues.map(({ code, specPath }) => `${code} ${specPath}`).sort();
    assert.deepEqual(found, [
      'MALFORMED augmentation.0.op',
      'MALFORMED env.0.name',
      'NOT_ALLOWED hyperparams.early_stopping.goal',
      'OUT_OF_RANGE augmentation.0.probability',
      'OUT_OF_RANGE hyperparams.lr',
      'OUT_OF_RANGE resources.gpus',
      'REQUIRED command.0',
      'REQUIRED model',
      'UNKNOWN_FIELD hyperparams.early_stopping.monitr',
      'UNKNOWN_FIELD modle',
      'UNKNOWN_FIELD resources.gpu',
      'WRONG_TYPE dataset',
      'WRONG_TYPE hyperparams.batch_size',
      'WRONG_TYPE hyperparams.early_stopping.patience',
    ]);
    const hintOf = (path: string) => issues.find(({ specPath }) => specPath === path)?.hint;
    assert.equal(hintOf('modle'), 'Did you mean "model"?');
    assert.equal(hintOf('hyperparams.early_stopping.monitr'), 'Did you mean "monitor"?');
    assert.equal(hintOf('hyperparams.early_stopping.goal'), 'Did you mean "MINIMIZE"?');
    assert.equal(hintOf('resources.gpu'), 'Did you mean "gpus"?');
  });

  test('without what is required names all of it', () => {
    assert.deepEqual(codesOf({}).sort(), ['REQUIRED dataset', 'REQUIRED model', 'REQUIRED project_id']);
    assert.deepEqual(codesOf([]).length, 1);
    assert.deepEqual(parseSpec('text').issues[0]?.code, 'WRONG_TYPE');
    assert.deepEqual(parseSpec(null).issues[0]?.code, 'WRONG_TYPE');
  });

  test('takes null for unset, and hands untouched what belongs to the script', () => {
    const params = { a: null, B: [1, { c: null }] };
    const { spec } = parseSpec({
      ...least,
      name: null,
      hyperparams: { lr: null, mine: { x: null } },
      augmentation: [{ op: 'shift', probability: null, params }],
    });
    assert.deepEqual(spec, {
      ...least,
      hyperparams: { mine: { x: null } },
      augmentation: [{ op: 'shift', params }],
    });
  });

  test('with a schedule is refused with the way to create one', () => {
    const [issue] = parseSpec({ ...least, schedule: { cron: '0 * * * *' } }).issues;
    assert.equal(issue?.code, 'NOT_ALLOWED');
    assert.match(issue.message, /schedule: a job is submitted once/);
    assert.match(issue.hint ?? '', /createSchedule/);
  });

  test('with text that cannot be stored is refused where it stands', () => {
    assert.deepEqual(codesOf({ ...least, notes: 'a\0b' }), ['MALFORMED notes']);
    assert.deepEqual(codesOf({ ...least, tags: ['ok', '\ud800'] }), ['MALFORMED tags.1']);
    assert.deepEqual(codesOf({ ...least, hyperparams: { x: { 'k\0': 1 } } }), ['MALFORMED hyperparams.x']);
    let deep: unknown = 1;
    for (let i = 0; i < 40; i++) deep = { deep };
    assert.equal(parseSpec({ ...least, hyperparams: { deep } }).issues[0]?.code, 'OUT_OF_RANGE');
  });

  test('must not set reserved or repeated variables', () => {
    const env = ['ASTRAML_JOB_ID', 'A', 'A'].map((name) => ({ name, from: { value: '' } }));
    assert.deepEqual(codesOf({ ...least, env }), ['NOT_ALLOWED env.0.name', 'NOT_ALLOWED env.2.name']);
  });

  test('warns of a slip of the hand, and of a schedule that nobody knows, without refusing', () => {
    const warnings = (hyperparams: object) =>
      parseSpec({ ...least, hyperparams }).warnings.map(({ message }) => message);
    assert.match(warnings({ batch_sise: 8 })[0] ?? '', /Did you mean "batch_size"/);
    assert.match(warnings({ lr_scheduler: 'cosinus' })[0] ?? '', /Did you mean "cosine"/);
    assert.deepEqual(warnings({ weight_decay: 0.1, lr_scheduler: 'linear' }), []);
  });

  test('is never the reason for an exception', () => {
    fc.assert(fc.property(fc.anything(), (value) => Array.isArray(parseSpec(value).issues)));
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom('hyperparams', 'env', 'resources', 'model', '__proto__', 'x'), fc.jsonValue()),
        (value) => Array.isArray(parseSpec(value).issues),
      ),
    );
  });
});

suite('the two notations', () => {
  test('are one thing: file → input → file gives the file back', () => {
    const full = {
      ...seed,
      hyperparams: { ...seed.hyperparams, weight_decay: 0.1, camelCase: { in_side: 1 } },
      augmentation: [{ op: 'shift', probability: 0.5, params: { max_pixels: 2 } }],
      env: [{ name: 'A_B', from: { value: 'x' } }],
      timeout_seconds: 60,
      queue_timeout_seconds: 60,
      start_timeout_seconds: 60,
      max_retries: 2,
      on_cut: 'stop',
      defaults_version: 'v2.1',
      metrics: { window_seconds: 10 },
    };
    const input = toInput(full);
    assert.deepEqual(Object.keys(input).includes('timeoutSeconds'), true);
    assert.deepEqual((input['hyperparams'] as { extra: object }).extra, {
      weight_decay: 0.1,
      camelCase: { in_side: 1 },
    });
    assert.deepEqual(fromInput(input), full);
    assert.deepEqual(parseSpec(full).issues, []);
  });

  test('give an issue the path that its sender knows', () => {
    const at = (path: string[]) => atInput({ code: 'REQUIRED', message: '', path }, ['input', 'spec']).path.join('.');
    assert.equal(at(['hyperparams', 'batch_size']), 'input.spec.hyperparams.batchSize');
    assert.equal(at(['hyperparams', 'my_own', 'x_y']), 'input.spec.hyperparams.extra.my_own.x_y');
    assert.equal(at(['augmentation', '0', 'params', 'max_pixels']), 'input.spec.augmentation.0.params.max_pixels');
  });

  test('do not let extra hide a field', () => {
    assert.deepEqual(
      shadowedExtras({ hyperparams: { extra: { batch_size: 1, other: 2 } } }).map(({ hint }) => hint),
      ['Set hyperparams.batchSize.'],
    );
  });
});

suite('resolution', () => {
  const layers = (spec: Spec) => [
    layerOf(spec, 'REQUEST'),
    layerOf({ command: ['true'] }, 'PROJECT'),
    defaultsLayer(v21),
  ];

  test('takes the request, else the project, else the defaults, and keeps what was overridden', () => {
    const resolved = resolve(layers({ ...seed, hyperparams: { batch_size: 64 } }));
    const valueAt = (path: string) => resolved.find((value) => value.path === path);
    assert.deepEqual(valueAt('hyperparams.batch_size'), {
      path: 'hyperparams.batch_size',
      source: 'REQUEST',
      value: 64,
      overrides: [{ source: 'DEFAULT', value: 32 }],
    });
    assert.equal(valueAt('hyperparams.lr')?.source, 'DEFAULT');
    assert.equal(valueAt('metrics.window_seconds')?.source, 'PLATFORM');
    assert.equal(valueAt('command')?.source, 'PROJECT');
    assert.deepEqual(
      resolved.map(({ path }) => path),
      resolved.map(({ path }) => path).toSorted(),
    );
  });

  test('gives the effective spec in the shape of the file', () => {
    const spec = {
      ...seed,
      hyperparams: { 'a.b': 1 },
      augmentation: [{ op: 'shift' }, { op: 'noise', probability: 0.2 }],
    };
    const effective = effectiveSpec(resolve(layers(spec)), spec) as Spec & { on_cut: string };
    assert.equal(effective.hyperparams?.batch_size, 32);
    assert.equal(effective.hyperparams['a.b'], 1);
    assert.deepEqual(effective.hyperparams.early_stopping, {
      enabled: true,
      patience: 5,
      goal: 'MINIMIZE',
      min_delta: 0,
    });
    assert.deepEqual(effective.augmentation, [
      { op: 'shift', probability: 1, params: {} },
      { op: 'noise', probability: 0.2, params: {} },
    ]);
    assert.equal(effective.on_cut, 'continue');
  });

  test('hashes what training depends on, and nothing else', () => {
    const hash = (spec: Spec) => hashOf(trainingPart(effectiveSpec(resolve(layers(spec)), spec)));
    assert.equal(hash(seed), hash({ ...seed, name: 'x', tags: ['y'], notes: 'z', priority: 5 }));
    assert.equal(hash(seed), hash({ ...seed, hyperparams: {} }), 'a default that is spelt out trains the same');
    assert.notEqual(hash(seed), hash({ ...seed, model: 'other' }));
    assert.notEqual(hash(seed), hash({ ...seed, env: [{ name: 'A', from: { value: '1' } }] }));
  });

  test('is a function of its layers: order of keys does not matter', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ minLength: 1 }), fc.integer()), (extra) => {
        const forward = { ...least, hyperparams: extra };
        const backward = { ...least, hyperparams: Object.fromEntries(Object.entries(extra).reverse()) };
        assert.deepEqual(resolve(layers(forward)), resolve(layers(backward)));
      }),
    );
  });
});

test('a published version of the defaults never changes', () => {
  const hashes = Object.fromEntries(
    builtinVersions.map(({ version, documented, platform }) => [version, hashOf({ documented, platform })]),
  );
  assert.deepEqual(hashes, { 'v2.1': '679792cf04af2db9e65c5327996d54938ed3db67910ea21c4c573a1323b802d9' });
  assert.deepEqual(v21.documented, {
    'hyperparams.batch_size': 32,
    'hyperparams.lr': 3e-5,
    'hyperparams.epochs': 5,
    'hyperparams.early_stopping.patience': 5,
    'hyperparams.lr_scheduler': 'cosine',
    'hyperparams.gradient_accumulation_steps': 1,
  });
});
