// Finds the GPUs of this machine by nvidia-smi. A machine without GPUs offers virtual slots, marked
// by the model "virtual".
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Gpu } from '../protocol/control.ts';

export const virtualModel = 'virtual';

/**
 * Returns the GPUs to offer: those of the machine, at most `count`. Without any, `count` virtual
 * slots (1 by default).
 */
export async function findGpus(count?: number): Promise<Gpu[]> {
  const real = await listRealGpus();
  if (real.length > 0) return count === undefined ? real : real.slice(0, count);
  return Array.from({ length: count ?? 1 }, (_, index) => ({ index, model: virtualModel, memoryBytes: 0 }));
}

async function listRealGpus(): Promise<Gpu[]> {
  const query = ['--query-gpu=index,name,memory.total', '--format=csv,noheader,nounits'];
  const { stdout } = await promisify(execFile)('nvidia-smi', query, { timeout: 10_000 }).catch(() => ({ stdout: '' }));
  return stdout
    .split('\n')
    .map((line) => line.split(',').map((part) => part.trim()))
    .filter((parts) => parts.length === 3 && /^\d+$/.test(parts[0] ?? ''))
    .map(([index, model = '', mebibytes]) => ({
      index: Number(index),
      model,
      memoryBytes: (Number(mebibytes) || 0) * 1024 * 1024,
    }));
}
