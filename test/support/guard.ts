// Guards end processes with their test. For each server or child, a small shell holds the other end
// of a pipe. When this process ends in any way, kill -9 included, the shell ends the guarded
// process and removes its folder.
import { spawn } from 'node:child_process';

export interface Guard {
  /** Sets the process to end; undefined for none. A negative number is a process group. */
  watch(pid: number | undefined): void;
  /** Ends the guard after an orderly end, when nothing is left to clean up. May be called twice. */
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

/**
 * Starts a guard. When this process exits without a release, it prints `name` as a leak, and a
 * clean exit becomes a failure.
 */
export function guard(options: { name: string; signal?: 'KILL' | 'QUIT' | 'TERM'; folder?: string }): Guard {
  const shell = spawn('/bin/sh', ['-c', script, 'guard', options.signal ?? 'KILL', options.folder ?? ''], {
    cwd: '/',
    detached: true, // Ctrl-C in a terminal must not reach the shell
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
  if (process.exitCode) return; // the process fails already, and the shells clean up
  console.error(`left running at the end of the process: ${[...held].join(', ')}`);
  process.exitCode = 1;
}
