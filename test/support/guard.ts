// What a test starts ends with the test. For each server or child a shell of a few lines holds the other end of a
// pipe: when this process is gone, however it went (kill -9 too), the shell ends what was started and removes its folder.
import { spawn } from 'node:child_process';

export interface Guard {
  /** The process to end from now on; undefined when there is none. A negative number is a process group. */
  watch(pid: number | undefined): void;
  /** All was ended and removed in order: nothing is left to do. Twice is fine. */
  release(): void;
}

const script = `
pid=
while read -r line; do
  [ "$line" = done ] && exit 0
  pid=$line
done
if [ -n "$pid" ]; then
  kill -s "$1" -- "$pid"
  n=0
  while kill -s 0 -- "$pid" && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
  kill -s KILL -- "$pid"
fi
[ -z "$2" ] || rm -rf -- "$2"
`;

const held = new Set<string>();

/** `name` is said when this process exits without a release: that is a leak, and turns a clean exit into a failure. */
export function guard(options: { name: string; signal?: 'KILL' | 'QUIT' | 'TERM'; folder?: string }): Guard {
  const shell = spawn('/bin/sh', ['-c', script, 'guard', options.signal ?? 'KILL', options.folder ?? ''], {
    cwd: '/',
    detached: true, // Ctrl-C in a terminal must not reach it
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  shell.on('error', () => {});
  shell.stdin.on('error', () => {});
  shell.unref();
  if ('unref' in shell.stdin && typeof shell.stdin.unref === 'function') shell.stdin.unref();
  const name = `${options.name} (guard ${shell.pid})`;
  if (held.size === 0) process.once('exit', reportHeld);
  held.add(name);
  return {
    watch(pid) {
      shell.stdin.write(`${pid ?? ''}\n`);
    },
    release() {
      if (!held.delete(name)) return;
      if (held.size === 0) process.off('exit', reportHeld);
      shell.stdin.end('done\n');
    },
  };
}

function reportHeld(): void {
  if (process.exitCode) return; // it fails already; the shells clean up
  console.error(`left running at the end of the process: ${[...held].join(', ')}`);
  process.exitCode = 1;
}
