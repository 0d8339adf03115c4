// The folder of one attempt: what its command finds there, under whom it runs, and what the runner keeps there for its
// next start. A command under a user of its own owns its parts, and nobody else can enter them; the rest stays the runner's.
import { chmodSync, chownSync, renameSync, writeFileSync } from 'node:fs';
import { chmod, chown, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Assignment } from '../protocol/control.ts';
import { type AttemptFile, attemptFileName } from './attempt.ts';
import type { Folders } from './environment.ts';
import type { AttemptName } from './executor.ts';
import { passMode, type User } from './user.ts';

export class Workspace {
  readonly folders: Folders;
  readonly name: AttemptName;
  readonly #user: User | undefined;
  readonly #file: string;
  readonly #kept: AttemptFile;
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
    this.#kept = { jobId: job.id, attempt: String(attemptNumber), gpus };
    this.name = { attemptId, jobId: job.id, attempt: this.#kept.attempt };
  }

  /** Before the command is started. */
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
    await writeFile(this.#file, JSON.stringify(this.#kept), { mode: 0o600 });
    this.#isMade = true;
  }

  /** Whole at once, since an attempt of which half is known counts as not started. */
  async keepLife(life: string | null): Promise<void> {
    await writeFile(`${this.#file}.new`, JSON.stringify({ ...this.#kept, life }), { mode: 0o600 });
    await rename(`${this.#file}.new`, this.#file);
  }

  /** Whole at once, and before the signal: a script may look for it in its handler. */
  announceStop(reason: string, leftMs: number): void {
    if (!this.#isMade) return;
    const deadline = Math.round((Date.now() + leftMs) / 1000);
    const file = `${this.folders.stopFile}.new`;
    writeFileSync(file, JSON.stringify({ reason, deadline }));
    if (this.#user) {
      chmodSync(file, 0o600);
      chownSync(file, this.#user.uid, this.#user.uid);
    }
    renameSync(file, this.folders.stopFile);
  }

  /** The attempt ended in order: the next start has nothing to do. */
  async forget(): Promise<void> {
    await rm(this.#file, { force: true });
  }
}
