// Commands as process groups of this machine. "Gone" is proved, not assumed: no process but zombies in the group, and
// none elsewhere whose environment names this job and attempt, since children that call setsid survive the group.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import type { CommandEnd, CommandOptions, Executor, RunningCommand } from './executor.ts';
import { startGuard } from './guard.ts';
import { countOomKills } from './memory.ts';
import { makePipes } from './pipe.ts';

/** A child that left its pipe to a grandchild must not keep the attempt open after its end. */
const drainMs = 2_000;
/** What does not end by SIGKILL within this time waits for its disk or driver. */
const straysMs = 5_000;
/** Between looks at whether all processes are gone: each looks at every process of the machine. */
const [lookMs, longestLookMs] = [20, 500];

export const processExecutor: Executor = {
  guard: startGuard,
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
  async endStrays(jobId, attempt, onLeft) {
    if (!(await listPids())) return null;
    const seen = new Set<string>();
    const sayAt = performance.now() + straysMs;
    let said = false;
    // One that forks and ends while we look is seen neither itself nor in its child: none were found twice in a row.
    for (let [misses, pauseMs] = [0, lookMs]; misses < 2; pauseMs = Math.min(2 * pauseMs, longestLookMs)) {
      const found = await findProcesses({ jobId, attempt, seen });
      misses = found.length === 0 ? misses + 1 : 0;
      for (const { pid, life } of found) {
        kill(pid, 'SIGKILL');
        seen.add(life);
      }
      if (found.length > 0 && performance.now() > sayAt && !said) {
        said = true;
        onLeft?.(found.map(({ pid }) => pid));
      }
      if (misses < 2) await sleep(misses > 0 ? lookMs : pauseMs);
    }
    return seen.size;
  },
};

function running(child: ChildProcess, ended: Promise<CommandEnd>, { env }: CommandOptions): RunningCommand {
  const pid = child.pid ?? 0;
  const find = () => findProcesses({ jobId: env['ASTRAML_JOB_ID'], attempt: env['ASTRAML_ATTEMPT'], group: pid });
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

/** `life` is its pid with its start: a pid alone is given out again. */
type Found = { pid: number; life: string; inGroup: boolean };

/**
 * Living processes of the group, those whose environment names the job and the attempt, and those that were seen before:
 * one that is ending has no environment any more, but may still hold a GPU. Without /proc (not Linux) only the group can be
 * asked, whether it exists.
 */
async function findProcesses({
  jobId = '',
  attempt = '',
  group,
  seen,
}: {
  jobId?: string | undefined;
  attempt?: string | undefined;
  group?: number;
  seen?: ReadonlySet<string>;
}): Promise<Found[]> {
  const marks = [`ASTRAML_JOB_ID=${jobId}`, `ASTRAML_ATTEMPT=${attempt}`];
  const pids = await listPids();
  if (pids === null) return group !== undefined && isAlive(-group) ? [{ pid: group, life: '', inGroup: true }] : [];
  const found = await Promise.all(
    pids.map(async (pid) => {
      const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      const [state = '', , pgrp] = fields;
      const life = `${pid} ${fields[19]}`;
      if (state === '' || state === 'Z' || state === 'X' || pid === process.pid) return null;
      if (Number(pgrp) === group || seen?.has(life)) return { pid, life, inGroup: Number(pgrp) === group };
      const variables = (await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')).split('\0');
      return marks.every((mark) => variables.includes(mark)) ? { pid, life, inGroup: false } : null;
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
