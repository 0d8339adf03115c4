// What stands between us and a command on Linux: a shell that enters the attempt's control group before the command
// begins, and waits for it. Node reports a command that was ended by one of the signals 34 to 64 as one that exited 0; a
// shell tells them apart. It has none of the job's variables by their names, since as root it must not load what
// LD_PRELOAD names: they are exported just before the command, under the command's own uid.
import { realpathSync } from 'node:fs';
import { constants } from 'node:os';
import { basename } from 'node:path';
import { becoming, type User } from './user.ts';

/** Descriptors of `cgroup.procs`, where there is a group to enter, and of the shell's own words. */
export const wrapperDescriptors = { group: 3, words: 4 };
/** The command was not begun. */
export const notBegun = 125;

// `unset`: what the shell itself adds. Names are read as positional parameters, so that no variable of the shell stands in
// the way of one of the job's.
const exportAll = `unset PWD OLDPWD SHLVL _
while [ "$1" != -- ]; do
  eval "command export $1=\\"\\$E_$1\\"" 2> /dev/null
  unset "E_$1"
  shift
done
shift
exec "$@"`;

// Signals that the job sends to its own process group reach the shell too: it outlives them. The trap is a command, not
// empty, so that children have the defaults. A foreground subshell: in the background INT and QUIT would be ignored.
const waiting = (enters: boolean, inner: string) => `exec 5>&2 2>&4 4>&-
${enters ? `echo 0 >&3 || exit ${notBegun}; exec 3>&-` : ''}
trap : 1 2 3 10 12 13 14 15 16 24 25 26 27 29 30 ${Array.from({ length: 31 }, (_, index) => index + 34).join(' ')}
(
exec 2>&5 5>&-
${inner}
)
exit $?`;

const shell = '/bin/sh';

/** File, arguments and environment to spawn in place of the command's own. */
export function wrap(
  command: readonly string[],
  env: Readonly<Record<string, string>>,
  { user, enters }: { user?: User | undefined; enters: boolean },
): { file: string; args: string[]; env: Record<string, string> } {
  // The shorter first: E_X may be a variable of the job itself, which X must have left by then.
  const names = Object.keys(env).toSorted((a, b) => a.length - b.length);
  const rest = [...names, '--', ...command];
  const under = user && becoming(user, [shell, '-c', exportAll, 'astraml', ...rest]);
  const args = under
    ? ['-c', waiting(enters, 'exec "$@"'), 'astraml', under[0], ...under[1]]
    : ['-c', waiting(enters, exportAll), 'astraml', ...rest];
  return {
    file: shell,
    args,
    env: Object.fromEntries(Object.entries(env).map(([name, value]) => [`E_${name}`, value])),
  };
}

/** dash and busybox name the signal that ended a command in the foreground, but for INT and PIPE; bash says nothing. */
const namesSignals = /dash|busybox/.test(basename(realOf(shell)));
const silent = new Set([constants.signals.SIGINT, constants.signals.SIGPIPE]);

/** What the shell's exit code says of its command, and what it said itself. A signal without a name stays 128 + n. */
export function readStatus(status: number, words: string): { exitCode: number | null; signal: string | null } {
  const number = status - 128;
  const isSignal = words !== '' || silent.has(number) || !namesSignals;
  const name = Object.entries(constants.signals).find(([, each]) => each === number)?.[0];
  return isSignal && name ? { exitCode: null, signal: name } : { exitCode: status, signal: null };
}

function realOf(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    return file;
  }
}
