// What a runner must not keep in its environment, which every process of its uid can read in /proc for as long as it runs,
// also after `delete process.env`. The process begins again without it, as the same process, and reads it from a pipe.
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Names a descriptor from which the variables below are read, as JSON. */
const descriptorName = 'ASTRAML_RUNNER_SECRETS_FD';
const secretNames = ['ASTRAML_RUNNER_TOKEN', 'REDIS_URL'];

/**
 * The secret variables that this process was given. When they stand in its environment, it does not return: the process
 * begins again without them.
 */
export function takeSecrets(env: NodeJS.ProcessEnv = process.env): Record<string, string> {
  const descriptor = env[descriptorName];
  delete env[descriptorName]; // supervisors have another descriptor of that number
  if (descriptor !== undefined) return JSON.parse(readFileSync(Number(descriptor), 'utf8')) as Record<string, string>;
  const found = Object.fromEntries(secretNames.flatMap((name) => (env[name] ? [[name, env[name]] as const] : [])));
  if (Object.keys(found).length > 0 && process.execve) beginAgain(found, env);
  return found;
}

function beginAgain(secrets: Record<string, string>, env: NodeJS.ProcessEnv): void {
  const folder = mkdtempSync(join(tmpdir(), 'astraml-start-'));
  try {
    const file = join(folder, 'secrets');
    execFileSync('mkfifo', ['-m', '600', file]);
    // The new program has the standard descriptors only: the pipe takes the place of the input, which a runner never reads.
    closeSync(0);
    const reader = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK); // else it would wait for a writer
    if (reader !== 0) throw new Error(`The pipe is descriptor ${reader}.`);
    writeSync(openSync(file, 'w'), JSON.stringify(secrets)); // a pipe takes 64 KiB before anybody reads
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const rest = Object.entries(env).filter(([name]) => !secretNames.includes(name));
  process.removeAllListeners('warning'); // that `execve` is experimental
  const args = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  process.execve?.(process.execPath, args, { ...Object.fromEntries(rest), [descriptorName]: '0' });
}
