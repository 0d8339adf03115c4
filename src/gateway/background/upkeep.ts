// Background work on logs, metrics, refused records and runs of schedules: it merges metric windows
// into tiers, and removes data that is past retention. A step is one short transaction on jobs that
// it has locked, so that any number of gateways share the work.
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
 * Makes a step that prunes jobs that ended more than `days` days ago, oldest end first, 20 at a
 * time. The next step goes on after them: later ends reach their retention later. A gateway that
 * starts begins anew.
 */
export function pruneStep(store: Store, days: number, prune: Prune): () => Promise<boolean> {
  let lastPruned: EndedJob | null = null;
  return async () => {
    const before = daysAgo(days);
    const jobs = await listEnded(store.database.db, before, lastPruned, jobsPerStep);
    if (jobs.length === 0) return false;
    const ids = jobs.map(({ id }) => id);
    const pruned = await commit(store, async (tx) => {
      await lockJobs(tx, ids);
      return prune(tx, ids, rowsPerStep);
    });
    if (pruned === 'ALL') lastPruned = jobs.at(-1) ?? null;
    return pruned !== 'LATER';
  };
}

/**
 * Makes a step that goes over all schedules, 20 at a time, and removes their runs (decisions about
 * due times) that are more than `days` days old.
 */
export function pruneRunsStep(store: Store, days: number): () => Promise<boolean> {
  let lastId = '';
  return async () => {
    const before = daysAgo(days);
    const ids = await listScheduleIds(store.database.db, lastId, schedulesPerStep);
    const last = ids.at(-1);
    if (last === undefined) {
      lastId = '';
      return false;
    }
    if (await commit(store, (tx) => pruneRuns(tx, ids, before, rowsPerStep))) lastId = last;
    return true;
  };
}
