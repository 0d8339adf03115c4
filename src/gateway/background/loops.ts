// Background work of a gateway. Every gateway runs every loop. A step locks its rows with FOR
// UPDATE SKIP LOCKED, does a bounded amount of work and commits, so that gateways share the work
// and elect no leader.
import { setTimeout as sleep } from 'node:timers/promises';
import { workFigures } from '../../metrics-registry.ts';

export type LoopOptions = {
  /** Name of the loop. It is the value of a metric label, so it comes from a short list. */
  name: string;
  /**
   * Pause after a step that left nothing to do. It is shortened at random by up to a fifth, so that
   * gateways spread out.
   */
  everyMs: number;
  /** One bounded piece of work. True says that more is left: the next step follows at once. */
  step(signal: AbortSignal): Promise<boolean>;
  /** Called with the first failure of an outage; the loop goes on after a pause. */
  report(error: unknown, name: string): void;
};

/** Repeats a step until it is stopped. Stopping waits for the step in progress; stopping twice is fine. */
export function startLoop({ name, everyMs, step, report }: LoopOptions): { stop(): Promise<void> } {
  const ending = new AbortController();
  const { signal } = ending;
  const run = async () => {
    let failed = false;
    while (!signal.aborted) {
      let more = false;
      try {
        more = await step(signal);
        failed = false;
        workFigures.steps.inc({ loop: name, outcome: 'done' });
      } catch (error) {
        if (!signal.aborted) workFigures.steps.inc({ loop: name, outcome: 'failed' });
        if (!failed && !signal.aborted) report(error, name);
        failed = true;
      }
      if (!more) await sleep(everyMs * (1 - Math.random() / 5), undefined, { signal }).catch(() => {});
    }
  };
  const running = run();
  return {
    async stop() {
      ending.abort();
      await running;
    },
  };
}
