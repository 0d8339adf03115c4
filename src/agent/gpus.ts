// The GPUs of this machine, as nvidia-smi tells. A machine without offers virtual slots, and says so wherever they show.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Gpu } from '../protocol/control.ts';

export const virtualModel = 'virtual';

/** GPUs to offer: those of the machine, at most `wanted`; without any, `wanted` virtual slots (1 by default). */
export async function findGpus(wanted?: number): Promise<Gpu[]> {
  const real = await listRealGpus();
  if (real.length > 0) return wanted === undefined ? real : real.slice(0, wanted);
  return Array.from({ length: wanted ?? 1 }, (_, index) => ({ index, model: virtualModel, memoryBytes: 0 }));
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
