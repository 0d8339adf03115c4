// Probes every 2 s whether the uplink's streams take entries, and asks how long the oldest batch
// has waited to be stored: `/readyz` and metrics show both. A faulty sender can use up the ids of a
// Redis stream, and only an append finds that out.
import type { Bus } from '../../bus/bus.ts';
import { workFigures } from '../../metrics-registry.ts';
import { type LoopOptions, startLoop } from '../background/loops.ts';

const probeEveryMs = 2_000;

export type UplinkWatch = {
  /** The reason why a stream takes no entries; null while all do, and before the first probe. */
  problem(): string | null;
  /**
   * Seconds since the oldest batch came that no gateway has stored; 0 for none. While Redis is away
   * the seconds go on from its last answer.
   */
  oldestBatchSeconds(): number;
  start(): void;
  stop(): Promise<void>;
};

/** `report` gets the first problem of each outage. */
export function createUplinkWatch(bus: Bus, report: LoopOptions['report']): UplinkWatch {
  let problem: string | null = null;
  let oldestAt: Date | null = null;
  let loop: { stop(): Promise<void> } | undefined;
  const setProblem = (reason: string | null) => {
    problem = reason;
    workFigures.uplinkOpen.set(reason === null ? 1 : 0);
  };
  const oldestBatchSeconds = () => (oldestAt ? Math.max(0, (Date.now() - oldestAt.getTime()) / 1000) : 0);
  setProblem(null); // open until the first probe says otherwise
  const step = async () => {
    try {
      oldestAt = await bus.oldest();
      workFigures.oldestBatch.set(oldestBatchSeconds());
      await bus.probe();
      setProblem(null);
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
      throw error;
    }
    return false;
  };
  return {
    problem: () => problem,
    oldestBatchSeconds,
    start: () => void (loop ??= startLoop({ name: 'uplink probe', everyMs: probeEveryMs, step, report })),
    stop: async () => loop?.stop(),
  };
}
