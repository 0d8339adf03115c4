// Strays: attempts of an earlier process of the runner whose supervisor is gone, while processes of
// theirs may still run.
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { attemptFileName, readAttemptFile, type RunningAttempt } from './attempt.ts';
import type { Executor } from './executor.ts';

type Options = { executor: Executor; workDir: string; onTrouble?: ((error: unknown) => void) | undefined };

/**
 * Finds the attempts of an earlier process of the runner, except those in `supervised`, and starts
 * to end them. `gone` resolves as `endStray` does. Until then their GPUs are not free.
 */
export async function findStrays(
  options: Options,
  supervised: ReadonlySet<string>,
): Promise<{ attempt: RunningAttempt; gone: Promise<boolean> }[]> {
  const strays: { attempt: RunningAttempt; gone: Promise<boolean> }[] = [];
  for (const attemptId of await readdir(join(options.workDir, 'attempts')).catch(() => [])) {
    const file = supervised.has(attemptId) ? undefined : await readAttemptFile(folderOf(options, attemptId));
    if (file === undefined) continue;
    const gone = endStray(options, attemptId);
    const done = gone.then(
      () => {},
      () => {},
    );
    const attempt = { attemptId, gpus: file?.gpus ?? [], done, acknowledge() {}, ask() {}, stop() {}, abandon() {} };
    strays.push({ attempt, gone });
  }
  return strays;
}

/**
 * Ends an attempt whose supervisor is gone: kills its processes and removes its files, except those
 * that the job made. Resolves to true when the attempt had not ended in order and none of its
 * processes runs any more.
 */
export async function endStray(options: Options, attemptId: string): Promise<boolean> {
  const { executor, onTrouble } = options;
  const folder = folderOf(options, attemptId);
  const file = await readAttemptFile(folder);
  if (file === undefined) return false;
  const reportLeft = (pids: number[]) =>
    onTrouble?.(new Error(`Processes of ${file?.jobId} are not ended by SIGKILL yet: ${pids.join(', ')}.`));
  const ended = file ? await executor.endStrays({ attemptId, ...file }, reportLeft) : 0;
  if (ended) onTrouble?.(new Error(`Ended ${ended} processes that were left of ${file?.jobId}.`));
  await rm(join(folder, 'spool'), { recursive: true, force: true });
  await rm(join(folder, attemptFileName), { force: true });
  return ended !== null;
}

function folderOf({ workDir }: Options, attemptId: string): string {
  return join(workDir, 'attempts', attemptId);
}
