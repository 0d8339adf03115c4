// A user of its own for each project: its jobs can neither read nor signal what is the runner's, or another project's. No
// account is needed, only numbers that nobody else hands out.
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
import { findTool, isReachable } from './program.ts';
import { readOrEmpty } from './read.ts';

/** Under whom a command runs, where it is not the runner's own user: uid and gid are one number. */
export type User = {
  uid: number;
  /** Groups beside its own, e.g. those of the GPU devices. */
  groups: readonly number[];
  /** Its home, which only it can enter. */
  home: string;
};

export type UidRange = { first: number; last: number };

/** Others pass through, to what is theirs, and see no names. */
export const passMode = 0o711;
const usersFolder = 'users';

/** `70000-99999`; undefined for anything else, and for numbers that accounts may have. */
export function readUidRange(text: string): UidRange | undefined {
  const [, first, last] = (/^(\d{4,9})-(\d{4,9})$/.exec(text) ?? []).map(Number);
  return first !== undefined && last !== undefined && first >= 1_000 && first <= last ? { first, last } : undefined;
}

/**
 * The users of a runner's projects: `users/<uid>` in its work folder, with the project's id and its home. A project keeps
 * its uid for good. Throws with a sentence where commands cannot run under another uid.
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
    const tried = spawnSync(...becoming(first, ['/bin/sh', '-c', ':']), { encoding: 'utf8' });
    if (tried.status !== 0)
      throw new Error(`Commands cannot run as uid ${first.uid} here: ${tried.stderr.trim() || tried.error?.message}`);
  }

  /** The project's user, made at its first job. Throws when all numbers are taken. */
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
    // A folder takes a number by its name, whole at once: two runners on one folder never hand out the same.
    const made = mkdtempSync(join(this.#folder, 'new-'));
    try {
      writeFileSync(join(made, 'project'), projectId, { mode: 0o600 });
      chmodSync(made, passMode);
      const taken = new Set(this.#taken());
      for (let uid = this.#range.first; uid <= this.#range.last; uid++) {
        if (taken.has(uid)) continue;
        try {
          renameSync(made, join(this.#folder, String(uid)));
          return uid;
        } catch {
          // another runner was first
        }
      }
    } finally {
      rmSync(made, { recursive: true, force: true });
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

/** Under whom an attempt runs, or why it must not. */
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

/** File and arguments that run a command under a user, who can gain nothing by it. */
export function becoming({ uid, groups }: User, command: readonly string[]): [string, string[]] {
  const others = groups.length > 0 ? `--groups=${groups.join(',')}` : '--clear-groups';
  const nothing = ['--no-new-privs', '--bounding-set=-all', '--inh-caps=-all'];
  return [findTool('setpriv') ?? 'setpriv', [`--reuid=${uid}`, `--regid=${uid}`, others, ...nothing, '--', ...command]];
}

/** Groups that may use the GPUs, as the devices say and not by name; none where everybody may. */
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
