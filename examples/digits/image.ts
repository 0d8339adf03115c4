// What the augmentation operations do to one image, with nothing left to chance. Each returns a new array and leaves
// the given one as it is; pixels that come from outside the image are 0 (paper).
import { PIXELS, SIDE } from './data.ts';
import type { Random } from './random.ts';

/** Moves the picture `right` and `down` by whole pixels (negative: left and up). */
export function shiftImage(image: Float32Array, right: number, down: number): Float32Array {
  const moved = new Float32Array(PIXELS);
  for (let y = Math.max(0, down); y < Math.min(SIDE, SIDE + down); y++)
    for (let x = Math.max(0, right); x < Math.min(SIDE, SIDE + right); x++)
      moved[y * SIDE + x] = image[(y - down) * SIDE + x - right]!;
  return moved;
}

/** Turns the picture clockwise about its centre; between pixels, values are interpolated linearly. */
export function rotateImage(image: Float32Array, degrees: number): Float32Array {
  const turned = new Float32Array(PIXELS);
  const centre = (SIDE - 1) / 2;
  const cos = Math.cos((degrees * Math.PI) / 180);
  const sin = Math.sin((degrees * Math.PI) / 180);
  for (let y = 0; y < SIDE; y++)
    for (let x = 0; x < SIDE; x++) {
      const fromX = centre + (x - centre) * cos + (y - centre) * sin;
      const fromY = centre - (x - centre) * sin + (y - centre) * cos;
      turned[y * SIDE + x] = valueBetween(image, fromX, fromY);
    }
  return turned;
}

/** Adds to every pixel a normal random number with the standard deviation `std`; results are cut to 0 … 1. */
export function addNoise(image: Float32Array, std: number, random: Random): Float32Array {
  return image.map((value) => Math.min(1, Math.max(0, value + std * random.normal())));
}

/** Paints the square of `size` pixels with its top left corner at (`left`, `top`) in 0 (paper). */
export function eraseSquare(image: Float32Array, left: number, top: number, size: number): Float32Array {
  const erased = image.slice();
  for (let y = top; y < top + size; y++) erased.fill(0, y * SIDE + left, y * SIDE + left + size);
  return erased;
}

function valueBetween(image: Float32Array, x: number, y: number): number {
  const left = Math.floor(x);
  const top = Math.floor(y);
  const fromRight = x - left;
  const fromBelow = y - top;
  return (
    pixelAt(image, left, top) * (1 - fromRight) * (1 - fromBelow) +
    pixelAt(image, left + 1, top) * fromRight * (1 - fromBelow) +
    pixelAt(image, left, top + 1) * (1 - fromRight) * fromBelow +
    pixelAt(image, left + 1, top + 1) * fromRight * fromBelow
  );
}

function pixelAt(image: Float32Array, x: number, y: number): number {
  return x < 0 || y < 0 || x >= SIDE || y >= SIDE ? 0 : image[y * SIDE + x]!;
}
