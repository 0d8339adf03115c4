// The command line as people and scripts meet it: `astraml …` in a process of its own, in a folder of its own. What
// this process was given (tokens, projects, colours) does not reach it; what a test gives does.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** For `spawnNode`, where a test watches the process while it runs. */
export const binary = resolve(import.meta.dirname, '../../bin/astraml.mjs');

/** Undefined takes a variable away. */
export type Environment = Record<string, string | undefined>;

export interface Ran {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  /** Over what `signIn` says. */
  env?: Environment;
  cwd?: string;
  input?: string;
}

export interface CommandLine {
  /** Where commands run. */
  folder: string;
  /** Runs `astraml …args` to its end; SIGKILL after 30 s. */
  run(args: string[], options?: RunOptions): Promise<Ran>;
  /** A file of the folder; returns its name. */
  write(name: string, content: string): string;
  /** What `run` sets on top of our own environment. */
  environment(env?: Environment): Environment;
  /** Removes the folder. */
  remove(): void;
}

/** `signIn` is asked at each run, so that it may name a gateway that does not run yet. */
export function commandLine(signIn: () => Environment): CommandLine {
  const folder = mkdtempSync(join(tmpdir(), 'cli-'));
  const environment = (env: Environment = {}): Environment => ({
    ASTRAML_DATA_DIR: undefined,
    ASTRAML_PROJECT: undefined,
    NO_COLOR: undefined,
    FORCE_COLOR: undefined,
    ...signIn(),
    ...env,
  });
  return {
    folder,
    environment,
    run: (args, { env, cwd = folder, input = '' } = {}) => runBinary(args, environment(env), cwd, input),
    write(name, content) {
      writeFileSync(join(folder, name), content);
      return name;
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

async function runBinary(args: string[], env: Environment, cwd: string, input: string): Promise<Ran> {
  const child = spawn(process.execPath, [binary, ...args], {
    cwd,
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, ...env },
    timeout: 30_000,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin.on('error', () => {}); // it may end without having read
  child.stdin.end(input);
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}
