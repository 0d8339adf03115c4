// Whether the kernel ended processes for want of memory, as the control group of this process counts it.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Processes of our control group, to which every command belongs too, that were killed for want of memory so far; null
 * where nobody counts them. Version 2 says it in `memory.events`, version 1 in `memory.oom_control`.
 */
export async function countOomKills({ proc = '/proc', cgroups = '/sys/fs/cgroup' } = {}): Promise<number | null> {
  const groups = (await read(join(proc, 'self/cgroup'))).split('\n').map((line) => line.split(':'));
  const first = groups.find(([, controllers = '']) => controllers.split(',').includes('memory'))?.[2];
  const second = groups.find(([hierarchy]) => hierarchy === '0')?.[2];
  // In a container the path may be the host's, and our own group is what is mounted.
  const files = [
    ...(second === undefined ? [] : [join(cgroups, second, 'memory.events'), join(cgroups, 'memory.events')]),
    ...(first === undefined ? [] : [join(cgroups, 'memory', first, 'memory.oom_control')]),
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
