// Control groups (version 2), one for each attempt. A process that starts in one stays in it,
// whatever it does with its session, its environment and its title, and one write kills them all.
// No controller is needed, so an empty hierarchy beside version 1 (`/sys/fs/cgroup/unified`) works
// too.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { readOrEmpty } from './read.ts';

/** Name of the common folder of all attempts. It is removed with the last of them. */
const folderName = 'astraml';
const probeMs = 2_000;
/**
 * Another attempt that ends may remove the common folder at the moment in which this group is made.
 */
const makeTries = 5;
/**
 * Upper bound of groups that one measurement reads: a job may make any number of groups below its
 * own.
 */
const maxMeasuredGroups = 256;

export class ControlGroup {
  readonly #path: string;

  constructor(folder: string, name: string) {
    this.#path = join(folder, name);
  }

  /**
   * Makes the group and returns a descriptor of its `cgroup.procs`: a process that writes 0 there
   * enters, under another uid too.
   */
  make(): number {
    for (let tries = 1; ; tries++) {
      try {
        mkdirSync(this.#path, { recursive: true });
        return openSync(join(this.#path, 'cgroup.procs'), 'w');
      } catch (error) {
        if (tries === makeTries) throw error;
      }
    }
  }

  /**
   * Whether a process other than a zombie is in the group or below; `cgroup.procs` lists only
   * direct members.
   */
  isPopulated(): boolean {
    return /^populated 1$/m.test(readOrEmpty(join(this.#path, 'cgroup.events')));
  }

  /** Lists the processes in the group and in groups that the job made below. */
  listPids(): number[] {
    return groupsAt(this.#path).flatMap((group) => pidsIn(readOrEmpty(join(group, 'cgroup.procs'))));
  }

  /** Like `listPids`, but asynchronous: for a measurement, which must not hold up other work. */
  async findPids(): Promise<number[]> {
    const groups = [this.#path];
    const pids: number[] = [];
    for (const group of groups) {
      pids.push(...pidsIn(await readFile(join(group, 'cgroup.procs'), 'utf8').catch(() => '')));
      const entries = await readdir(group, { withFileTypes: true }).catch(() => []);
      const below = entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(group, name));
      // the list grows during the loop
      groups.push(...below.slice(0, maxMeasuredGroups - groups.length));
    }
    return pids;
  }

  /**
   * CPU seconds of all processes that ever were in the group; the kernel counts them without a
   * controller.
   */
  async readCpuSeconds(): Promise<number | null> {
    const usec = await this.#readNumber('cpu.stat', /^usage_usec (\d+)$/m);
    return usec === null ? null : usec / 1e6;
  }

  /**
   * Memory of the group in bytes; null without the memory controller. It leaves out cached file
   * pages that the kernel can drop: with them, a job that reads 1 TB would seem to fill the
   * machine.
   */
  async readMemoryBytes(): Promise<number | null> {
    const bytes = await this.#readNumber('memory.current', /^(\d+)$/m);
    const droppable = await this.#readNumber('memory.stat', /^inactive_file (\d+)$/m);
    return bytes === null ? null : Math.max(0, bytes - (droppable ?? 0));
  }

  async #readNumber(file: string, pattern: RegExp): Promise<number | null> {
    const number = pattern.exec(await readFile(join(this.#path, file), 'utf8').catch(() => ''))?.[1];
    return number === undefined ? null : Number(number);
  }

  /** Kills all processes in the group at once, also those that are being forked. */
  kill(): void {
    try {
      writeFileSync(join(this.#path, 'cgroup.kill'), '1');
    } catch {
      // the group is gone already
    }
  }

  /** Removes the group and the groups below. Call it when no process is in them. */
  remove(): void {
    const groups = [...groupsAt(this.#path).toReversed(), dirname(this.#path)];
    for (const group of groups) {
      try {
        rmdirSync(group);
      } catch {
        // the group is gone, or the common folder holds another attempt
      }
    }
  }
}

/**
 * Finds the folder for the groups of attempts, below the group of this process. Null without
 * control groups of version 2, or where a trial process cannot enter one there and be killed by it.
 */
export async function findGroupFolder(proc = '/proc'): Promise<string | null> {
  const own = /^0::(.*)$/m.exec(readOrEmpty(join(proc, 'self/cgroup')))?.[1];
  if (own === undefined) return null;
  const mounts = readOrEmpty(join(proc, 'self/mounts'))
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, , type]) => type === 'cgroup2')
    .map(([, path = '']) => path.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8))));
  // In a container this path may be that of the host, while only the own group is mounted.
  for (const folder of mounts.flatMap((mount) => [join(mount, own, folderName), join(mount, folderName)])) {
    if (await holdsProcesses(folder)) return folder;
  }
  return null;
}

/** Sentence that a runner logs at its start where it has no folder for groups. */
export const withoutGroups =
  'No control group of version 2 can be written to here. Processes of a job are followed by session and descent, so ' +
  'one that leaves both between two looks, and changes its environment, is not found.';

let probes = 0;

async function holdsProcesses(folder: string): Promise<boolean> {
  const group = new ControlGroup(folder, `probe-${process.pid}-${++probes}`);
  let procs: number | undefined;
  try {
    procs = group.make();
    const child = spawn('/bin/sh', ['-c', 'echo 0 >&3 && exec sleep 60'], {
      stdio: ['ignore', 'ignore', 'ignore', procs],
    });
    const ended = once(child, 'exit') as Promise<[number | null, string | null]>;
    ended.catch(() => {});
    const deadline = performance.now() + probeMs;
    while (!group.isPopulated() && child.exitCode === null && performance.now() < deadline) await sleep(1);
    const entered = group.isPopulated();
    group.kill();
    await Promise.race([ended, sleep(probeMs, undefined, { ref: false })]);
    if (entered && child.signalCode === 'SIGKILL' && !group.isPopulated()) return true;
    child.kill('SIGKILL');
    await ended;
    return false;
  } catch {
    return false;
  } finally {
    if (procs !== undefined) closeSync(procs);
    group.remove();
  }
}

/** Parses `cgroup.procs`. Pid 0 is a process of another pid namespace; the last line is empty. */
function pidsIn(procs: string): number[] {
  return procs
    .split('\n')
    .map(Number)
    .filter((pid) => pid > 1);
}

/** Lists a group and all groups below it, each parent before its children. */
function groupsAt(path: string): string[] {
  try {
    const below = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    return [path, ...below.flatMap(({ name }) => groupsAt(join(path, name)))];
  } catch {
    return [];
  }
}
