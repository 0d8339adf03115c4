// What an earlier life of the runner left behind: attempts whose supervisor is gone, with processes that may still run.
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { attemptFileName, readAttemptFile, type RunningAttempt } from './attempt.ts';
import type { Executor } from './executor.ts';

type Options = { executor: Executor; workDir: string; onTrouble?: ((error: unknown) => void) | undefined };

/**
 * What an earlier life left running, but for attempts that are still supervised: it is being ended, and `left` says how,
 * see `endStray`. Until then its GPUs are not free.
 */
export async function findStrays(
  options: Options,
  supervised: ReadonlySet<string>,
): Promise<{ attempt: RunningAttempt; left: Promise<boolean> }[]> {
  const strays: { attempt: RunningAttempt; left: Promise<boolean> }[] = [];
  for (const attemptId of await readdir(join(options.workDir, 'attempts')).catch(() => [])) {
    const file = supervised.has(attemptId) ? undefined : await readAttemptFile(folderOf(options, attemptId));
    if (file === undefined) continue;
    const left = endStray(options, attemptId);
    const done = left.then(
      () => {},
      () => {},
    );
    const attempt = { attemptId, gpus: file?.gpus ?? [], done, acknowledge() {}, ask() {}, stop() {}, abandon() {} };
    strays.push({ attempt, left });
  }
  return strays;
}

/**
 * Ends what is left of an attempt whose supervisor is gone: its processes, and its files but for what the job made. True
 * when it did not end in order, and nothing of it runs any more.
 */
export async function endStray(options: Options, attemptId: string): Promise<boolean> {
  const { executor, onTrouble } = options;
  const folder = folderOf(options, attemptId);
  const file = await readAttemptFile(folder);
  if (file === undefined) return false;
  const sayLeft = (pids: number[]) =>
    onTrouble?.(new Error(`Processes of ${file?.jobId} are not ended by SIGKILL yet: ${pids.join(', ')}.`));
  const ended = file ? await executor.endStrays({ attemptId, ...file }, sayLeft) : 0;
  if (ended) onTrouble?.(new Error(`Ended ${ended} processes that were left of ${file?.jobId}.`));
  await rm(join(folder, 'spool'), { recursive: true, force: true });
  await rm(join(folder, attemptFileName), { force: true });
  return ended !== null;
}

function folderOf({ workDir }: Options, attemptId: string): string {
  return join(workDir, 'attempts', attemptId);
}
