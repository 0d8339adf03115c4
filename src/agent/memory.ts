// Counts the processes that the kernel killed for want of memory, in the control group of this
// process.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Returns how many processes of this process's control group, which contains every command, were
 * killed for want of memory so far; null where the kernel does not count them. Version 2 of control
 * groups counts in `memory.events`, version 1 in `memory.oom_control`.
 */
export async function countOomKills({ proc = '/proc', cgroups = '/sys/fs/cgroup' } = {}): Promise<number | null> {
  const groups = (await read(join(proc, 'self/cgroup'))).split('\n').map((line) => line.split(':'));
  const versionOne = groups.find(([, controllers = '']) => controllers.split(',').includes('memory'))?.[2];
  const versionTwo = groups.find(([hierarchy]) => hierarchy === '0')?.[2];
  // In a container this path may be that of the host, while only the own group is mounted.
  const files = [
    ...(versionTwo === undefined ? [] : [join(cgroups, versionTwo, 'memory.events'), join(cgroups, 'memory.events')]),
    ...(versionOne === undefined ? [] : [join(cgroups, 'memory', versionOne, 'memory.oom_control')]),
    join(cgroups, 'memory/memory.oom_control'),
  ];
  for (const file of files) {
    const count = /^oom_kill (\d+)$/m.exec(await read(file))?.[1];
    if (count !== undefined) return Number(count);
  }
  return null;
}

async function read(file: string): Promise<string> {
  return readFile(file, 'utf8').catch(() => '');
}
