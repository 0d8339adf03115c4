// The folder of one attempt: files for its command, and a file for the next start of the runner.
// When the command runs under a uid of its own, that uid owns the files of the command and other
// jobs cannot enter them; the rest stays the runner's.
import { chmodSync, chownSync, renameSync, writeFileSync } from 'node:fs';
import { chmod, chown, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Assignment } from '../protocol/control.ts';
import { type AttemptFile, attemptFileName } from './attempt.ts';
import type { Folders } from './environment.ts';
import type { AttemptName, User } from './executor.ts';
import { passMode } from './user.ts';

export class Workspace {
  readonly folders: Folders;
  readonly name: AttemptName;
  readonly #user: User | undefined;
  readonly #file: string;
  readonly #attemptFile: AttemptFile;
  #isMade = false;

  constructor(folder: string, { attemptId, attemptNumber, job, gpus }: Assignment, user?: User) {
    this.folders = {
      work: join(folder, 'work'),
      output: join(folder, 'output'),
      config: join(folder, 'config.json'),
      stopFile: join(folder, 'stop.json'),
    };
    this.#user = user;
    this.#file = join(folder, attemptFileName);
    this.#attemptFile = { jobId: job.id, attempt: String(attemptNumber), gpus };
    this.name = { attemptId, jobId: job.id, attempt: this.#attemptFile.attempt };
  }

  /** Makes the folders and files; call it before the command is started. */
  async make(spec: Assignment['spec']): Promise<void> {
    const { work, output, config } = this.folders;
    for (const folder of [work, output]) await mkdir(folder, { recursive: true });
    await writeFile(config, JSON.stringify(spec, null, 2));
    if (this.#user) {
      for (const path of [work, output, config]) {
        await chmod(path, path === config ? 0o600 : 0o700);
        await chown(path, this.#user.uid, this.#user.uid);
      }
      await chmod(join(work, '..'), passMode);
    }
    await writeFile(this.#file, JSON.stringify(this.#attemptFile), { mode: 0o600 });
    this.#isMade = true;
  }

  /**
   * Adds the life of the command (pid and start time) to the attempt's file. The file is replaced
   * as a whole: half a file would mean that the command was not started.
   */
  async keepLife(life: string | null): Promise<void> {
    await writeFile(`${this.#file}.new`, JSON.stringify({ ...this.#attemptFile, life }), { mode: 0o600 });
    await rename(`${this.#file}.new`, this.#file);
  }

  /**
   * Writes the stop file, before SIGTERM is sent: a script may read it in its signal handler. It
   * appears as a whole.
   */
  announceStop(reason: string, remainingMs: number): void {
    if (!this.#isMade) return;
    const deadline = Math.round((Date.now() + remainingMs) / 1000);
    const file = `${this.folders.stopFile}.new`;
    writeFileSync(file, JSON.stringify({ reason, deadline }));
    if (this.#user) {
      chmodSync(file, 0o600);
      chownSync(file, this.#user.uid, this.#user.uid);
    }
    renameSync(file, this.folders.stopFile);
  }

  /**
   * Removes the attempt's file after an orderly end: the next start of the runner has nothing to
   * clean up.
   */
  async forget(): Promise<void> {
    await rm(this.#file, { force: true });
  }
}
