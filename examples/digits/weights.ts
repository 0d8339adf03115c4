// The result of a run as files: the weights as raw numbers, and beside them what they mean.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LAYERS, type Model } from './model.ts';

/** Writes `weights.f32` (little-endian, laid out as `Model` says) and `weights.json`; returns the first one's path. */
export function saveWeights(model: Model, folder: string, about: Record<string, unknown>): string {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, 'weights.f32');
  const { buffer, byteOffset, byteLength } = model.parameters;
  writeFileSync(path, new Uint8Array(buffer, byteOffset, byteLength));
  const meaning = { file: 'weights.f32', layers: LAYERS, count: model.parameters.length, ...about };
  writeFileSync(join(folder, 'weights.json'), `${JSON.stringify(meaning, null, 2)}\n`);
  return path;
}
