// Wraps a command on Linux into a shell that enters the attempt's control group before the command
// begins, and waits for it. The shell also tells its end: Node reports a command that was ended by
// one of the signals 34 to 64 as one that exited with 0. The shell gets the job's variables under
// other names (`E_…`), since as root it must not load what LD_PRELOAD names. They are exported just
// before the command, under the command's own uid.
import { realpathSync } from 'node:fs';
import { constants } from 'node:os';
import { basename } from 'node:path';
import type { User } from './executor.ts';
import { becoming } from './user.ts';

/**
 * Descriptors of `cgroup.procs`, where there is a group to enter, and of the messages of the shell
 * itself.
 */
export const wrapperDescriptors = { group: 3, words: 4 };
/** Exit code of the shell when the command was not begun. */
export const notBegun = 125;

// `unset` removes variables that the shell adds itself. Names come as positional parameters, so
// that no variable of the shell hides one of the job.
const exportAll = `unset PWD OLDPWD SHLVL _
while [ "$1" != -- ]; do
  eval "command export $1=\\"\\$E_$1\\"" 2> /dev/null
  unset "E_$1"
  shift
done
shift
exec "$@"`;

// The shell must survive signals that the job sends to its own process group. Its trap runs the
// command `:`, since an empty trap would make children ignore the signals. The subshell runs in the
// foreground: in the background it would ignore INT and QUIT.
const waitingScript = (enters: boolean, inner: string) => `exec 5>&2 2>&4 4>&-
${enters ? `echo 0 >&3 || exit ${notBegun}; exec 3>&-` : ''}
trap : 1 2 3 10 12 13 14 15 16 24 25 26 27 29 30 ${Array.from({ length: 31 }, (_, index) => index + 34).join(' ')}
(
exec 2>&5 5>&-
${inner}
)
exit $?`;

const shell = '/bin/sh';

/** Returns file, arguments and environment to spawn in place of the command. */
export function wrap(
  command: readonly string[],
  env: Readonly<Record<string, string>>,
  { user, enters }: { user?: User | undefined; enters: boolean },
): { file: string; args: string[]; env: Record<string, string> } {
  // Short names come first: E_X may be a variable of the job itself, so X must be exported from it
  // before.
  const names = Object.keys(env).toSorted((a, b) => a.length - b.length);
  const rest = [...names, '--', ...command];
  const under = user && becoming(user, [shell, '-c', exportAll, 'astraml', ...rest]);
  const args = under
    ? ['-c', waitingScript(enters, 'exec "$@"'), 'astraml', under[0], ...under[1]]
    : ['-c', waitingScript(enters, exportAll), 'astraml', ...rest];
  return {
    file: shell,
    args,
    env: Object.fromEntries(Object.entries(env).map(([name, value]) => [`E_${name}`, value])),
  };
}

/**
 * dash and busybox print the signal that ended a command, except INT and PIPE; bash prints nothing.
 */
const namesSignals = /dash|busybox/.test(basename(realOf(shell)));
const silent = new Set([constants.signals.SIGINT, constants.signals.SIGPIPE]);

/**
 * Reads the end of the command from the shell's exit code and its messages. A signal without a name
 * stays 128 + n.
 */
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
