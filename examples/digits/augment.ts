// Data augmentation: the `augmentation` list of a job spec becomes one function from image to image. Operations are
// applied in the given order, each to a sample with its own probability, anew every time the sample is drawn.
import { SIDE } from './data.ts';
import { addNoise, eraseSquare, rotateImage, shiftImage } from './image.ts';
import { type Fields, readFields, Refusal } from './input.ts';
import type { Random } from './random.ts';

type Change = (image: Float32Array, random: Random) => Float32Array;

/** One step as read: `text` for the log, e.g. `shift (pixels 2) on 50 % of the samples`. */
export type AugmentationStep = { probability: number; change: Change; text: string };

/**
 * The operations and their parameters (default; limits):
 *
 * - `shift`: `pixels` (2; 0 … 27, whole). Moves by a whole number of pixels from −pixels to +pixels, drawn apart for
 *   right and down.
 * - `rotate`: `degrees` (15; 0 … 180). Turns about the centre by an angle drawn evenly from −degrees to +degrees.
 * - `noise`: `std` (0.1; 0 … 1, in units of ink, where 1 is black). Adds normal noise to every pixel, cut to 0 … 1.
 * - `erase`: `size` (8; 1 … 28, whole, in pixels). Paints one square, size by size, somewhere inside the image in paper.
 */
const operations: Record<string, (params: Fields) => Change> = {
  shift(params) {
    const pixels = params.number('pixels', { default: 2, min: 0, max: SIDE - 1, whole: true });
    return (image, random) => shiftImage(image, random.whole(-pixels, pixels), random.whole(-pixels, pixels));
  },
  rotate(params) {
    const degrees = params.number('degrees', { default: 15, min: 0, max: 180 });
    return (image, random) => rotateImage(image, degrees * (2 * random.uniform() - 1));
  },
  noise(params) {
    const std = params.number('std', { default: 0.1, min: 0, max: 1 });
    return (image, random) => addNoise(image, std, random);
  },
  erase(params) {
    const size = params.number('size', { default: 8, min: 1, max: SIDE, whole: true });
    return (image, random) => eraseSquare(image, random.whole(0, SIDE - size), random.whole(0, SIDE - size), size);
  },
};

/** Refuses unknown operations and parameters by name. `probability` is 1 when it is not given. */
export function readAugmentation(value: unknown): AugmentationStep[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new Refusal('augmentation is not a list');
  return value.map((step: unknown, index) => readStep(step, `augmentation[${index}]`));
}

/** The image as training sees it; `image` itself when no operation fell on it. */
export function augmentImage(image: Float32Array, steps: AugmentationStep[], random: Random): Float32Array {
  let augmented = image;
  for (const { probability, change } of steps) {
    // A step that can never apply must not draw either: probability 0 trains exactly as without the step.
    if (probability > 0 && random.uniform() < probability) augmented = change(augmented, random);
  }
  return augmented;
}

function readStep(value: unknown, where: string): AugmentationStep {
  const step = readFields(value, where);
  const op = step.text('op');
  const read = op === undefined || !Object.hasOwn(operations, op) ? undefined : operations[op];
  if (read === undefined) {
    const given = op === undefined ? `${where} has no op` : `augmentation operation ${JSON.stringify(op)} is unknown`;
    throw new Refusal(`${given}; known: ${Object.keys(operations).join(', ')}`);
  }
  const probability = step.number('probability', { default: 1, min: 0, max: 1 });
  const params = readFields(step.raw('params'), `${where}.params`);
  const change = read(params);
  const [unknown] = params.rest();
  if (unknown !== undefined)
    throw new Refusal(
      `parameter ${JSON.stringify(unknown)} of the operation ${op} is unknown; known: ${[...params.read.keys()].join(', ')}`,
    );
  const values = Array.from(params.read, ([name, used]) => `${name} ${String(used)}`);
  return { probability, change, text: `${op} (${values.join(', ')}) on ${100 * probability} % of the samples` };
}
