// What an attempt uses, as metrics beside those that its command reports: `system/cpu` in percent of one core (250 is two
// and a half cores) since the sample before, and `system/memory` in bytes.
import { setTimeout as sleep } from 'node:timers/promises';
import type { RecordOf } from '../protocol/record.ts';
import type { RunningCommand } from './executor.ts';

const sampleMs = 10_000;
/** A job with hundreds of GB takes seconds to read: reading takes 1/50 of the time at most, down to once in 5 minutes. */
const [longestShare, longestPauseMs] = [1 / 50, 300_000];

/** Samples a command that was just started every 10 s until it ends, for the first time after 10 s. */
export async function sampleUsage(
  { ended, usage }: Pick<RunningCommand, 'ended' | 'usage'>,
  onPoints: (record: RecordOf<'points'>) => void,
): Promise<void> {
  const ending = new AbortController();
  const { signal } = ending;
  const end = () => ending.abort();
  ended.then(end, end);
  let before = { at: performance.now(), cpuSeconds: 0 };
  for (let pauseMs = sampleMs; ;) {
    await sleep(pauseMs, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    const [at, time] = [performance.now(), Date.now()];
    const { cpuSeconds, memoryBytes } = await usage();
    if (signal.aborted) return; // what ended while it was read would seem small
    const values: Record<string, number> = {};
    if (cpuSeconds !== null) {
      values['system/cpu'] = percentOf(cpuSeconds - before.cpuSeconds, at - before.at);
      before = { at, cpuSeconds };
    }
    if (memoryBytes !== null) values['system/memory'] = memoryBytes;
    if (Object.keys(values).length > 0) onPoints({ type: 'points', time, step: null, epoch: null, values });
    const tookMs = performance.now() - at;
    pauseMs = Math.max(sampleMs - tookMs, Math.min(tookMs / longestShare, longestPauseMs));
  }
}

/** With one decimal: the kernel counts in 1/100 s where there is no control group. */
function percentOf(cpuSeconds: number, elapsedMs: number): number {
  return Math.max(0, Math.round((cpuSeconds / elapsedMs) * 1_000_000) / 10);
}
