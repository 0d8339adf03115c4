// The model: a perceptron with one hidden layer (ReLU) and softmax, its loss (cross-entropy) and its gradient, written
// out. All weights lie in one flat array, so that the optimizer and the saved file need not know the layers.
import { CLASSES, PIXELS, type Sample } from './data.ts';
import type { Random } from './random.ts';

/** Wide enough to learn within a minute at the small default learning rate of 3e-5. */
const HIDDEN = 768;
export const LAYERS = [PIXELS, HIDDEN, CLASSES] as const;

type Views = { weights1: Float32Array; bias1: Float32Array; weights2: Float32Array; bias2: Float32Array };

/** `gradient` is laid out like `parameters`: weights1 (pixel by hidden unit), bias1, weights2 (hidden by class), bias2. */
export type Model = {
  parameters: Float32Array;
  gradient: Float32Array;
  weights: Views;
  slopes: Views;
  hidden: Float32Array;
  probabilities: Float64Array;
};

/** He initialisation (uniform), biases 0. */
export function createModel(random: Random): Model {
  const size = PIXELS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES;
  const parameters = new Float32Array(size);
  const gradient = new Float32Array(size);
  const weights = viewLayers(parameters);
  fillUniform(weights.weights1, Math.sqrt(6 / PIXELS), random);
  fillUniform(weights.weights2, Math.sqrt(6 / HIDDEN), random);
  return {
    parameters,
    gradient,
    weights,
    slopes: viewLayers(gradient),
    hidden: new Float32Array(HIDDEN),
    probabilities: new Float64Array(CLASSES),
  };
}

/** Adds the gradient of one sample's loss to `model.gradient` and returns the loss. */
export function addGradient(model: Model, pixels: Float32Array, label: number): number {
  const loss = predict(model, pixels, label);
  const { hidden, slopes, probabilities } = model;
  const { weights2 } = model.weights;
  probabilities[label]! -= 1; // now the slope of the loss at the softmax's input
  for (let k = 0; k < CLASSES; k++) slopes.bias2[k]! += probabilities[k]!;
  for (let j = 0; j < HIDDEN; j++) {
    const value = hidden[j]!;
    if (value === 0) continue; // ReLU is off: no slope passes
    let slope = 0;
    for (let k = 0, at = j * CLASSES; k < CLASSES; k++, at++) {
      slope += weights2[at]! * probabilities[k]!;
      slopes.weights2[at]! += value * probabilities[k]!;
    }
    hidden[j] = slope;
    slopes.bias1[j]! += slope;
  }
  const { weights1 } = slopes;
  for (let i = 0; i < PIXELS; i++) {
    const ink = pixels[i]!;
    if (ink === 0) continue;
    for (let j = 0, at = i * HIDDEN; j < HIDDEN; j++, at++) weights1[at]! += ink * hidden[j]!;
  }
  return loss;
}

/** Mean loss, and the share of samples whose likeliest class is the right one. */
export function evaluate(model: Model, samples: Sample[]): { loss: number; accuracy: number } {
  let loss = 0;
  let right = 0;
  for (const { pixels, label } of samples) {
    loss += predict(model, pixels, label);
    if (model.probabilities.indexOf(Math.max(...model.probabilities)) === label) right++;
  }
  return { loss: loss / samples.length, accuracy: right / samples.length };
}

/** Fills `model.hidden` and `model.probabilities`; returns the loss against `label`. */
function predict(model: Model, pixels: Float32Array, label: number): number {
  const { hidden, probabilities } = model;
  const { weights1, bias1, weights2, bias2 } = model.weights;
  hidden.set(bias1);
  for (let i = 0; i < PIXELS; i++) {
    const ink = pixels[i]!;
    if (ink === 0) continue; // most of an image is paper
    for (let j = 0, at = i * HIDDEN; j < HIDDEN; j++, at++) hidden[j]! += ink * weights1[at]!;
  }
  probabilities.set(bias2);
  for (let j = 0; j < HIDDEN; j++) {
    const value = hidden[j]!;
    if (value <= 0) hidden[j] = 0;
    else for (let k = 0, at = j * CLASSES; k < CLASSES; k++, at++) probabilities[k]! += value * weights2[at]!;
  }
  const score = probabilities[label]!;
  const top = Math.max(...probabilities);
  let sum = 0;
  for (let k = 0; k < CLASSES; k++) sum += probabilities[k] = Math.exp(probabilities[k]! - top);
  for (let k = 0; k < CLASSES; k++) probabilities[k]! /= sum;
  return Math.log(sum) + top - score;
}

function viewLayers(flat: Float32Array): Views {
  const bias1 = PIXELS * HIDDEN;
  const weights2 = bias1 + HIDDEN;
  const bias2 = weights2 + HIDDEN * CLASSES;
  return {
    weights1: flat.subarray(0, bias1),
    bias1: flat.subarray(bias1, weights2),
    weights2: flat.subarray(weights2, bias2),
    bias2: flat.subarray(bias2),
  };
}

function fillUniform(values: Float32Array, limit: number, random: Random): void {
  for (let i = 0; i < values.length; i++) values[i] = limit * (2 * random.uniform() - 1);
}
