// Commands as process groups of this machine. "Gone" is proved, not assumed: no process but zombies in the group, and
// none elsewhere whose environment names this job and attempt, since children that call setsid survive the group.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import type { CommandEnd, CommandOptions, Executor, RunningCommand } from './executor.ts';

/** A child that left its pipe to a grandchild must not keep the attempt open after its end. */
const drainMs = 2_000;

export const processExecutor: Executor = {
  async start(options) {
    const [file = '', ...args] = options.command;
    const child = spawn(file, args, {
      cwd: options.cwd,
      env: { ...options.env },
      detached: true, // a process group of its own: signals reach its children too
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const ended = endOf(child);
    child.stdout?.on('data', (chunk: Buffer) => options.onOutput('STDOUT', chunk));
    child.stderr?.on('data', (chunk: Buffer) => options.onOutput('STDERR', chunk));
    await Promise.race([once(child, 'spawn'), ended]).catch((error: unknown) => {
      throw new Error(explain(error, file), { cause: error });
    });
    return running(child, ended, options);
  },
  async endStrays(jobId, attempt) {
    const pids = await findProcesses(jobId, attempt);
    for (const pid of pids) kill(pid, 'SIGKILL');
    return pids.length;
  },
};

function running(child: ChildProcess, ended: Promise<CommandEnd>, { env }: CommandOptions): RunningCommand {
  const pid = child.pid ?? 0;
  const [jobId = '', attempt = ''] = [env['ASTRAML_JOB_ID'], env['ASTRAML_ATTEMPT']];
  return {
    ended,
    signal(name) {
      if (pid > 0) kill(-pid, name);
      if (name === 'SIGKILL') {
        void findProcesses(jobId, attempt).then((strays) => strays.forEach((stray) => kill(stray, 'SIGKILL')));
      }
    },
    async isGone() {
      const [group, strays] = await Promise.all([groupMembers(pid), findProcesses(jobId, attempt)]);
      return group.length === 0 && strays.length === 0;
    },
  };
}

async function endOf(child: ChildProcess): Promise<CommandEnd> {
  const closed = once(child, 'close');
  const [exitCode, signal] = (await Promise.race([once(child, 'exit'), closed])) as [number | null, string | null];
  const late = new Promise((resolve) => setTimeout(resolve, drainMs).unref());
  await Promise.race([closed, late]);
  child.stdout?.destroy();
  child.stderr?.destroy();
  return { exitCode, signal };
}

function kill(pid: number, signal: 'SIGTERM' | 'SIGKILL'): void {
  try {
    process.kill(pid, signal);
  } catch {
    // it ended by itself
  }
}

function explain(error: unknown, file: string): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOENT') return `${file} was not found on the runner.`;
  if (code === 'EACCES') return `${file} may not be executed on the runner.`;
  return error instanceof Error ? error.message : String(error);
}

/** Living processes of a group. Without /proc (not Linux) the group can only be asked whether it exists. */
async function groupMembers(group: number): Promise<number[]> {
  const pids = await listPids();
  if (pids === null) return isAlive(-group) ? [group] : [];
  const found = await Promise.all(
    pids.map(async (pid) => {
      const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
      const [state, , pgrp] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return Number(pgrp) === group && state !== 'Z' && state !== 'X' ? pid : null;
    }),
  );
  return found.filter((pid) => pid !== null);
}

/** Processes whose environment names the job and the attempt; none where there is no /proc. */
async function findProcesses(jobId: string, attempt: string): Promise<number[]> {
  const marks = [`ASTRAML_JOB_ID=${jobId}`, `ASTRAML_ATTEMPT=${attempt}`];
  const found = await Promise.all(
    ((await listPids()) ?? []).map(async (pid) => {
      const variables = (await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')).split('\0');
      return marks.every((mark) => variables.includes(mark)) ? pid : null;
    }),
  );
  return found.filter((pid) => pid !== null).filter((pid) => pid !== process.pid);
}

async function listPids(): Promise<number[] | null> {
  const names = await readdir('/proc').catch(() => null);
  return names && names.filter((name) => /^\d+$/.test(name)).map(Number);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
