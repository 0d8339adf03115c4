// Explains why a queued job waits: for its next attempt, a runner, GPUs or a place. GraphQL and
// REST share this function, so that both give the same reason.
import type { Db } from '../database/database.ts';
import type { Job } from '../job/job.ts';
import type { StateReason } from '../job/state.ts';
import { loadRunners } from '../runner/runner.ts';
import { type Cluster, explainWait } from './place.ts';
import { readCluster, requestOf } from './queue.ts';

/**
 * Sources of `waitReason`. A caller that answers for many jobs at once reads each of these once.
 */
export type WaitReads = { cluster(): Promise<Cluster>; runnerName(id: string): Promise<string | undefined> };

export async function waitReason(job: Job, reads: WaitReads): Promise<StateReason> {
  const pauseMs = job.notBefore ? job.notBefore.getTime() - Date.now() : 0;
  const { reasonMessage, reasonHint: hint, logExcerpt } = job;
  if (pauseMs > 0) {
    const message = `${reasonMessage ?? ''} It may start in ${Math.ceil(pauseMs / 1000)} s.`.trim();
    return { code: 'RETRY_BACKOFF', message, hint, logExcerpt };
  }
  const wait = explainWait(requestOf(job), (await reads.cluster()).machines);
  if (wait.hint !== null || job.leftOut.length === 0) return wait;
  const names = (await Promise.all(job.leftOut.map((id) => reads.runnerName(id)))).filter((name) => name !== undefined);
  return { ...wait, hint: `It failed twice in the same way on ${names.join(', ')}: another runner is preferred.` };
}

/** Sources for one job. */
export function readsOf(db: Db): WaitReads {
  return {
    cluster: () => readCluster(db),
    runnerName: async (id) => (await loadRunners(db, [id])).get(id)?.name,
  };
}
