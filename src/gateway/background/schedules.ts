// Decides the due times of schedules, once a second.
import type { Logger } from 'pino';
import type { Store } from '../../live/commit.ts';
import { runDueSchedules } from '../../schedule/due.ts';
import { type LoopOptions, startLoop } from './loops.ts';

/** Pause between two looks for due times. */
const everyMs = 1_000;

export function startSchedules(store: Store, log: Logger, report: LoopOptions['report']): { stop(): Promise<void> } {
  const held = new Map<string, number>();
  const reportSchedule = (error: unknown, scheduleId: string) => log.error({ err: error, scheduleId }, 'bug');
  return startLoop({
    name: 'schedules',
    everyMs,
    step: (signal) => runDueSchedules(store, { signal, held, report: reportSchedule }),
    report,
  });
}
