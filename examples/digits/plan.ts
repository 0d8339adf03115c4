// Where a step stands in the run: how many updates there are, which samples each takes, when to evaluate. A step is one
// optimizer update, made of `accumulation` micro-batches of `batchSize` samples; an epoch's last one takes what is left.

/** So that a patience of some evaluations means something within a few epochs. */
const EVALUATIONS_PER_EPOCH = 4;

export type Plan = {
  totalSteps: number;
  stepsPerEpoch: number;
  /** Epochs that are over after `step` updates; a fraction within an epoch. */
  epochAfter(step: number): number;
  /** Where the samples of the update `step` (from 1) begin and end in its epoch's order. */
  samplesOf(step: number): { from: number; to: number };
  /** Whether an evaluation follows the update: at each quarter of an epoch and after the last one. */
  isEvaluated(step: number): boolean;
};

export function createPlan(samples: number, perStep: number, epochs: number): Plan {
  const stepsPerEpoch = Math.ceil(samples / perStep);
  // the subtraction keeps 0.3 epochs of 10 steps from becoming 4 steps by a rounding error
  const totalSteps = Math.max(1, Math.ceil(epochs * stepsPerEpoch - 1e-9));
  const samplesAfter = (step: number) =>
    Math.floor(step / stepsPerEpoch) * samples + Math.min(samples, (step % stepsPerEpoch) * perStep);
  const evaluationsAfter = (step: number) => Math.floor((samplesAfter(step) * EVALUATIONS_PER_EPOCH) / samples);
  return {
    totalSteps,
    stepsPerEpoch,
    epochAfter: (step) => samplesAfter(step) / samples,
    samplesOf(step) {
      const from = ((step - 1) % stepsPerEpoch) * perStep;
      return { from, to: Math.min(samples, from + perStep) };
    },
    isEvaluated: (step) => step === totalSteps || evaluationsAfter(step) > evaluationsAfter(step - 1),
  };
}
