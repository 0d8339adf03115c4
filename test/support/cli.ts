// The command line `astraml …` in a process and a folder of its own. Tokens, projects and colours
// of this process do not reach it; the variables of a test do.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** Path of the binary, for tests that watch its process with `spawnNode`. */
export const binary = resolve(import.meta.dirname, '../../bin/astraml.mjs');

/** Variables by name; undefined removes one. */
export type Environment = Record<string, string | undefined>;

export interface Ran {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  /** Variables that replace those of `signIn`. */
  env?: Environment;
  cwd?: string;
  input?: string;
}

export interface CommandLine {
  /** Working folder of the commands. */
  folder: string;
  /** Runs `astraml …args` to its end; SIGKILL after 30 s. */
  run(args: string[], options?: RunOptions): Promise<Ran>;
  /** Writes a file into the folder and returns its name. */
  write(name: string, content: string): string;
  /** Returns the variables that `run` sets over those of this process. */
  environment(env?: Environment): Environment;
  /** Removes the folder. */
  remove(): void;
}

/**
 * Makes a command line. Each run calls `signIn`, so that it may name a gateway that starts later.
 */
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
  child.stdin.on('error', () => {}); // the child may end before it reads stdin
  child.stdin.end(input);
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}
