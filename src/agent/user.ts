// A uid for each project: its jobs can neither read nor signal processes and files of the runner or
// of another project. A uid needs no account, only a number that nothing else on the machine uses.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Assignment } from '../protocol/control.ts';
import type { User } from './executor.ts';
import { findTool, isReachable } from './program.ts';
import { readOrEmpty } from './read.ts';

export type UidRange = { first: number; last: number };

/** Mode of folders that other users may pass through, to reach their own, but not list. */
export const passMode = 0o711;
const usersFolder = 'users';

/**
 * Parses a range such as `70000-99999`. Undefined for any other text, and for uids below 1000,
 * which accounts may have.
 */
export function readUidRange(text: string): UidRange | undefined {
  const [, first, last] = (/^(\d{4,9})-(\d{4,9})$/.exec(text) ?? []).map(Number);
  return first !== undefined && last !== undefined && first >= 1_000 && first <= last ? { first, last } : undefined;
}

/**
 * The users of a runner's projects. `users/<uid>` in the work folder holds the id of the project
 * and the home. A project keeps its uid for good. The constructor throws, with a sentence for
 * users, where commands cannot run under another uid.
 */
export class ProjectUsers {
  readonly #folder: string;
  readonly #range: UidRange;

  constructor(workDir: string, range: UidRange) {
    this.#range = range;
    this.#folder = join(workDir, usersFolder);
    if (process.getuid?.() !== 0 || process.platform !== 'linux')
      throw new Error('A uid for each project takes a runner on Linux that was started as root.');
    if (!findTool('setpriv')) throw new Error('A uid for each project needs the program setpriv, of util-linux.');
    for (const folder of [workDir, join(workDir, 'attempts'), this.#folder]) {
      mkdirSync(folder, { recursive: true });
      chmodSync(folder, passMode);
    }
    const first: User = { uid: range.first, groups: [], home: '/' };
    if (!isReachable(workDir, first))
      throw new Error(
        `Other users cannot pass through to ${workDir}: all folders above it need mode ${passMode.toString(8)} or more.`,
      );
    const trial = spawnSync(...becoming(first, ['/bin/sh', '-c', ':']), { encoding: 'utf8' });
    if (trial.status !== 0)
      throw new Error(`Commands cannot run as uid ${first.uid} here: ${trial.stderr.trim() || trial.error?.message}`);
  }

  /**
   * Returns the user of a project and makes it at the first job. Throws when all uids are taken.
   */
  userOf(projectId: string, groups: readonly number[] = []): User {
    const uid = this.#find(projectId) ?? this.#make(projectId);
    const home = join(this.#folder, String(uid), 'home');
    mkdirSync(home, { recursive: true });
    chmodSync(home, 0o700);
    chownSync(home, uid, uid);
    return { uid, groups, home };
  }

  #find(projectId: string): number | undefined {
    return this.#taken().find((uid) => readOrEmpty(join(this.#folder, String(uid), 'project')) === projectId);
  }

  #make(projectId: string): number {
    // A rename takes the uid in one step, so two runners with one work folder never give out the
    // same uid.
    const folder = mkdtempSync(join(this.#folder, 'new-'));
    try {
      writeFileSync(join(folder, 'project'), projectId, { mode: 0o600 });
      chmodSync(folder, passMode);
      const taken = new Set(this.#taken());
      for (let uid = this.#range.first; uid <= this.#range.last; uid++) {
        if (taken.has(uid)) continue;
        try {
          renameSync(folder, join(this.#folder, String(uid)));
          return uid;
        } catch {
          // another runner took this uid first
        }
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
    const { first, last } = this.#range;
    throw new Error(`All uids from ${first} to ${last} are taken by other projects: give the runner a wider range.`);
  }

  #taken(): number[] {
    const { first, last } = this.#range;
    return readdirSync(this.#folder)
      .map(Number)
      .filter((uid) => uid >= first && uid <= last);
  }
}

/** Returns the user of an attempt, or the reason why the attempt must not run. */
export function userFor(
  users: ProjectUsers | undefined,
  { job, gpus }: Assignment,
  virtualGpus: boolean,
): { user?: User | undefined; refusal?: string } {
  try {
    return { user: users?.userOf(job.projectId, gpus.length > 0 && !virtualGpus ? gpuGroups() : []) };
  } catch (error) {
    return { refusal: error instanceof Error ? error.message : String(error) };
  }
}

/** File and arguments that run a command under a user, without any way to gain privileges. */
export function becoming({ uid, groups }: User, command: readonly string[]): [string, string[]] {
  const others = groups.length > 0 ? `--groups=${groups.join(',')}` : '--clear-groups';
  const nothing = ['--no-new-privs', '--bounding-set=-all', '--inh-caps=-all'];
  return [findTool('setpriv') ?? 'setpriv', [`--reuid=${uid}`, `--regid=${uid}`, others, ...nothing, '--', ...command]];
}

/**
 * Groups whose members may use the GPUs, by the mode of the device files; none where everybody may
 * use them.
 */
export function gpuGroups(dev = '/dev'): number[] {
  const devices = [...listIn(dev, /^nvidia|^kfd$/), ...listIn(join(dev, 'dri'), /./)];
  const gids = devices.flatMap((device) => {
    const stat = statSync(device, { throwIfNoEntry: false });
    return stat && !stat.isDirectory() && (stat.mode & 0o060) === 0o060 && stat.gid !== 0 ? [stat.gid] : [];
  });
  return [...new Set(gids)];
}

function listIn(folder: string, pattern: RegExp): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => pattern.test(name))
      .map((name) => join(folder, name));
  } catch {
    return [];
  }
}
