// Samples CPU and memory of an attempt as metrics, beside those that its command reports:
// `system/cpu` in percent of one core since the last sample (250 is two and a half cores), and
// `system/memory` in bytes.
import { setTimeout as sleep } from 'node:timers/promises';
import type { RecordOf } from '../protocol/record.ts';
import type { RunningCommand } from './executor.ts';

const sampleMs = 10_000;
/**
 * Reading the memory of a job with hundreds of GB takes seconds. Reading takes at most 1/50 of the
 * time, but happens at least every 5 minutes.
 */
const [longestShare, longestPauseMs] = [1 / 50, 300_000];

/**
 * Samples a command every 10 s until it ends, first after 10 s. Call it when the command has just
 * started.
 */
export async function sampleUsage(
  { ended, usage }: Pick<RunningCommand, 'ended' | 'usage'>,
  onPoints: (record: RecordOf<'points'>) => void,
): Promise<void> {
  const ending = new AbortController();
  const { signal } = ending;
  const end = () => ending.abort();
  ended.then(end, end);
  let last = { takenAt: performance.now(), cpuSeconds: 0 };
  for (let pauseMs = sampleMs; ;) {
    await sleep(pauseMs, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    const [takenAt, time] = [performance.now(), Date.now()];
    const { cpuSeconds, memoryBytes } = await usage();
    // processes may have ended during the read, so that the values are too small
    if (signal.aborted) return;
    const values: Record<string, number> = {};
    if (cpuSeconds !== null) {
      values['system/cpu'] = percentOf(cpuSeconds - last.cpuSeconds, takenAt - last.takenAt);
      last = { takenAt, cpuSeconds };
    }
    if (memoryBytes !== null) values['system/memory'] = memoryBytes;
    if (Object.keys(values).length > 0) onPoints({ type: 'points', time, step: null, epoch: null, values });
    const tookMs = performance.now() - takenAt;
    pauseMs = Math.max(sampleMs - tookMs, Math.min(tookMs / longestShare, longestPauseMs));
  }
}

/** Percent of a core, with one decimal: without a control group the kernel counts in 1/100 s. */
function percentOf(cpuSeconds: number, elapsedMs: number): number {
  return Math.max(0, Math.round((cpuSeconds / elapsedMs) * 1_000_000) / 10);
}
