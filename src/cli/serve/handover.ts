// Keeps the secrets of a runner out of its environment: every process of the same user can read
// that in /proc for as long as the runner runs, even after `delete process.env`. The process
// replaces itself with one without them, and passes them on through a pipe.
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Variable with the number of the descriptor from which the secrets are read, as JSON. */
const descriptorName = 'ASTRAML_RUNNER_SECRETS_FD';
const secretNames = ['ASTRAML_RUNNER_TOKEN', 'REDIS_URL'];

/**
 * Returns the secret variables of this process. When they stand in its environment it does not
 * return: the process replaces itself with one without them.
 */
export function takeSecrets(env: NodeJS.ProcessEnv = process.env): Record<string, string> {
  const descriptor = env[descriptorName];
  delete env[descriptorName]; // inherited by a supervisor, the number would name another descriptor
  if (descriptor !== undefined) return JSON.parse(readFileSync(Number(descriptor), 'utf8')) as Record<string, string>;
  const secrets = Object.fromEntries(secretNames.flatMap((name) => (env[name] ? [[name, env[name]] as const] : [])));
  if (Object.keys(secrets).length > 0 && process.execve) beginAgain(secrets, env);
  return secrets;
}

function beginAgain(secrets: Record<string, string>, env: NodeJS.ProcessEnv): void {
  const folder = mkdtempSync(join(tmpdir(), 'astraml-start-'));
  try {
    const file = join(folder, 'secrets');
    execFileSync('mkfifo', ['-m', '600', file]);
    // `execve` keeps only the standard descriptors, so the pipe takes the place of stdin, which a
    // runner never reads.
    closeSync(0);
    // non-blocking, else open waits for a writer
    const reader = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    if (reader !== 0) throw new Error(`The pipe is descriptor ${reader}.`);
    // does not block: a pipe buffers 64 KiB
    writeSync(openSync(file, 'w'), JSON.stringify(secrets));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const rest = Object.entries(env).filter(([name]) => !secretNames.includes(name));
  process.removeAllListeners('warning'); // no warning that `execve` is experimental
  const args = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  process.execve?.(process.execPath, args, { ...Object.fromEntries(rest), [descriptorName]: '0' });
}
