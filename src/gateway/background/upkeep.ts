// Background work on what jobs said and measured, and on what became of schedules' due times: windows are rolled up into
// tiers, and what is past retention is removed. A step is one short transaction on jobs that it has locked; any number of gateways share the work.
import type { Config } from '../../config.ts';
import { pruneRefused } from '../../intake/refuse.ts';
import { type EndedJob, listEnded, lockJobs, type Pruned } from '../../job/ended.ts';
import { commit, type Store, type Tx } from '../../live/commit.ts';
import { pruneLogs } from '../../log/log.ts';
import { prunePoints, pruneWindows } from '../../metric/retention.ts';
import { rollUpNext } from '../../metric/tier.ts';
import { listScheduleIds, pruneRuns } from '../../schedule/run.ts';
import { type LoopOptions, startLoop } from './loops.ts';

const rollUpEveryMs = 5_000;
const pruneEveryMs = 600_000;
const [jobsPerStep, schedulesPerStep, rowsPerStep] = [20, 20, 1_000];
const refusedDays = 30;

/** Starts the loops; stopping waits for the steps in progress. */
export function startUpkeep(
  store: Store,
  config: Pick<Config, 'logRetentionDays' | 'metricRawDays' | 'metricWindowDays'>,
  report: LoopOptions['report'],
): { stop(): Promise<void> } {
  const prune = (name: string, days: number, work: Prune) =>
    startLoop({ name, everyMs: pruneEveryMs, step: pruneStep(store, days, work), report });
  const loops = [
    startLoop({ name: 'roll-up', everyMs: rollUpEveryMs, step: () => commit(store, (tx) => rollUpNext(tx)), report }),
    prune('log retention', config.logRetentionDays, pruneLogs),
    prune('point retention', config.metricRawDays, prunePoints),
    prune('window retention', config.metricWindowDays, pruneWindows),
    startLoop({
      name: 'schedule retention',
      everyMs: pruneEveryMs,
      step: pruneRunsStep(store, config.logRetentionDays),
      report,
    }),
    startLoop({
      name: 'refused record retention',
      everyMs: pruneEveryMs,
      step: () => commit(store, (tx) => pruneRefused(tx, daysAgo(refusedDays), rowsPerStep)),
      report,
    }),
  ];
  return {
    async stop() {
      await Promise.all(loops.map((loop) => loop.stop()));
    },
  };
}

function daysAgo(days: number): Date {
  return new Date(Date.now() - days * 86_400_000);
}

/** Removes up to about `limit` rows of these jobs, which are locked. */
type Prune = (tx: Tx, jobIds: readonly string[], limit: number) => Promise<Pruned>;

/**
 * A step that goes over the jobs that ended so many days ago, in the order of their ends, some at a time; it goes on where
 * the one before stopped, since jobs come to the end of their time in that order. A gateway that starts begins anew.
 */
export function pruneStep(store: Store, days: number, prune: Prune): () => Promise<boolean> {
  let place: EndedJob | null = null;
  return async () => {
    const before = daysAgo(days);
    const jobs = await listEnded(store.database.db, before, place, jobsPerStep);
    if (jobs.length === 0) return false;
    const ids = jobs.map(({ id }) => id);
    const pruned = await commit(store, async (tx) => {
      await lockJobs(tx, ids);
      return prune(tx, ids, rowsPerStep);
    });
    if (pruned === 'ALL') place = jobs.at(-1) ?? null;
    return pruned !== 'LATER';
  };
}

/** A step that goes over all schedules, some at a time, and removes what was decided of due times so many days ago. */
export function pruneRunsStep(store: Store, days: number): () => Promise<boolean> {
  let place = '';
  return async () => {
    const before = daysAgo(days);
    const ids = await listScheduleIds(store.database.db, place, schedulesPerStep);
    const last = ids.at(-1);
    if (last === undefined) {
      place = '';
      return false;
    }
    if (await commit(store, (tx) => pruneRuns(tx, ids, before, rowsPerStep))) place = last;
    return true;
  };
}
