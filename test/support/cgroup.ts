// Makes a control group below that of this process, for a test: version 1, or version 2 for memory.
import { existsSync, mkdtempSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

type Controller = 'freezer' | 'memory';

export type Cgroup = {
  /** Writes a file of the group, e.g. a pid to `cgroup.procs`. */
  write(file: string, text: string): void;
  /** Limits the memory of the group, without swap. */
  limitMemory(bytes: number): void;
  /** Removes the group, which must be empty. */
  remove(): void;
};

/** Makes a group. Throws when the machine has no control groups or forbids them. */
export function makeCgroup(controller: Controller): Cgroup {
  const folder = mkdtempSync(join(parentOf(controller), 'astraml-'));
  const write = (file: string, text: string) => writeFileSync(join(folder, file), text);
  const has = (file: string) => existsSync(join(folder, file));
  const cgroup = {
    write,
    limitMemory(bytes: number) {
      write(has('memory.max') ? 'memory.max' : 'memory.limit_in_bytes', `${bytes}`);
      if (has('memory.swap.max')) write('memory.swap.max', '0');
      else if (has('memory.memsw.limit_in_bytes')) write('memory.memsw.limit_in_bytes', `${bytes}`);
    },
    remove: () => rmdirSync(folder),
  };
  if (controller === 'memory' && !has('memory.max') && !has('memory.limit_in_bytes')) {
    cgroup.remove();
    throw new Error('Groups of this machine do not limit memory.');
  }
  return cgroup;
}

export function mayMakeCgroup(controller: Controller): boolean {
  try {
    makeCgroup(controller).remove();
    return true;
  } catch {
    return false;
  }
}

function parentOf(controller: Controller): string {
  const groups = readFileSync('/proc/self/cgroup', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  const first = groups.find(([, controllers = '']) => controllers.split(',').includes(controller))?.[2];
  const root = first === undefined ? '/sys/fs/cgroup' : join('/sys/fs/cgroup', controller);
  if (controller === 'freezer' && first === undefined) throw new Error('Version 2 ends frozen processes.');
  const own = join(root, first ?? groups.find(([hierarchy]) => hierarchy === '0')?.[2] ?? '');
  return existsSync(own) ? own : root;
}
