// Commands as process groups of this machine. "Gone" is proved, not assumed: no process but zombies in the group, and
// none elsewhere whose environment names this job and attempt, since children that call setsid survive the group.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import type { CommandEnd, CommandOptions, Executor, RunningCommand } from './executor.ts';
import { countOomKills } from './memory.ts';
import { makePipes } from './pipe.ts';

/** A child that left its pipe to a grandchild must not keep the attempt open after its end. */
const drainMs = 2_000;
/** What does not end by SIGKILL within this time waits for its disk or driver, and no longer for us. */
const straysMs = 5_000;

export const processExecutor: Executor = {
  async start(options) {
    const [file = '', ...args] = options.command;
    const pipes = await makePipes(2);
    const killsBefore = await countOomKills();
    let child: ChildProcess;
    try {
      child = spawn(file, args, {
        cwd: options.cwd,
        env: { ...options.env },
        detached: true, // a process group of its own: signals reach its children too
        stdio: ['ignore', pipes?.[0]?.writer ?? 'pipe', pipes?.[1]?.writer ?? 'pipe'],
      });
    } catch (error) {
      pipes?.forEach(({ reader }) => reader.destroy());
      throw error;
    } finally {
      pipes?.forEach((pipe) => pipe.release());
    }
    const outputs = pipes?.map(({ reader }) => reader) ?? [child.stdout, child.stderr].filter((one) => one !== null);
    for (const [index, output] of outputs.entries()) {
      const stream = index === 0 ? 'STDOUT' : 'STDERR';
      output.on('data', (chunk: Buffer) => options.onOutput(stream, chunk));
    }
    const ended = endOf(child, outputs, killsBefore);
    await Promise.race([once(child, 'spawn'), ended]).catch((error: unknown) => {
      outputs.forEach((output) => output.destroy());
      throw new Error(explain(error, file), { cause: error });
    });
    return running(child, ended, options);
  },
  async endStrays(jobId, attempt) {
    const ended = new Set<number>();
    const deadline = performance.now() + straysMs;
    for (;;) {
      const found = await findProcesses(jobId, attempt);
      if (found.length === 0 || performance.now() > deadline) return ended.size;
      for (const { pid } of found) {
        kill(pid, 'SIGKILL');
        ended.add(pid);
      }
      await sleep(20);
    }
  },
};

function running(child: ChildProcess, ended: Promise<CommandEnd>, { env }: CommandOptions): RunningCommand {
  const pid = child.pid ?? 0;
  const find = () => findProcesses(env['ASTRAML_JOB_ID'], env['ASTRAML_ATTEMPT'], pid);
  return {
    ended,
    signal(name) {
      if (pid > 0) kill(-pid, name);
      void find().then((found) => found.filter(({ inGroup }) => !inGroup).forEach((stray) => kill(stray.pid, name)));
    },
    async isGone() {
      // A process that forks and ends while we look is seen neither itself nor in its child: hence twice.
      return (await find()).length === 0 && (await find()).length === 0;
    },
  };
}

async function endOf(
  child: ChildProcess,
  outputs: readonly Readable[],
  killsBefore: number | null,
): Promise<CommandEnd> {
  const drained = Promise.allSettled(outputs.map((output) => once(output, 'close')));
  const [exitCode, signal] = (await once(child, 'exit')) as [number | null, string | null];
  await Promise.race([drained, sleep(drainMs, undefined, { ref: false })]);
  await setImmediate(); // what stands in the pipe is read, also when we come late because we were busy
  outputs.forEach((output) => output.destroy());
  const kills = await countOomKills();
  const oomKilled = killsBefore !== null && kills !== null && kills > killsBefore;
  return { exitCode, signal, ...(oomKilled ? { oomKilled } : {}) };
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

type Found = { pid: number; inGroup: boolean };

/**
 * Living processes of the group, and those whose environment names the job and the attempt. Without /proc (not Linux)
 * only the group can be asked, whether it exists.
 */
async function findProcesses(jobId = '', attempt = '', group?: number): Promise<Found[]> {
  const marks = [`ASTRAML_JOB_ID=${jobId}`, `ASTRAML_ATTEMPT=${attempt}`];
  const pids = await listPids();
  if (pids === null) return group !== undefined && isAlive(-group) ? [{ pid: group, inGroup: true }] : [];
  const found = await Promise.all(
    pids.map(async (pid) => {
      const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
      const [state = '', , pgrp] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (state === '' || state === 'Z' || state === 'X' || pid === process.pid) return null;
      if (Number(pgrp) === group) return { pid, inGroup: true };
      const variables = (await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')).split('\0');
      return marks.every((mark) => variables.includes(mark)) ? { pid, inGroup: false } : null;
    }),
  );
  return found.filter((process) => process !== null);
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
