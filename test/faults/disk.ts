// A disk of its own and of any size (a tmpfs), which can be full at once: it shrinks to what it holds.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { statfsSync } from 'node:fs';

export type Disk = {
  /** Nothing more fits until `empty` is called. */
  fill(): void;
  /** As at the beginning. */
  empty(): void;
  /** Unmounts it, which also happens when this process is gone. */
  unmount(): Promise<unknown>;
};

export type DiskOptions = { bytes: number; owner?: { uid: number; gid: number } };

/** Mounts a disk at this folder. */
export function mountDisk(folder: string, { bytes, owner }: DiskOptions): Disk {
  const access = owner ? `,mode=0700,uid=${owner.uid},gid=${owner.gid}` : '';
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}${access}`, 'none', folder]);
  const resize = (size: number) => void execFileSync('mount', ['-o', `remount,size=${size}`, folder]);
  // The folder comes by the pipe: in the command line or the environment it would make the shell a part of the machine,
  // to be killed with it.
  const script = 'read -r folder; read -r line; umount --lazy -- "$folder" && rmdir -- "$folder" "${folder%/*}"';
  const shell = spawn('/bin/sh', ['-c', script], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
  shell.stdin.write(`${folder}\n`);
  return {
    fill() {
      const { blocks, bfree, bsize } = statfsSync(folder);
      resize((blocks - bfree) * bsize);
    },
    empty: () => resize(bytes),
    unmount() {
      const unmounted = once(shell, 'exit');
      shell.stdin.end();
      return unmounted;
    },
  };
}
