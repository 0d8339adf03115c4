// Runs commands as processes of this machine. That a command is gone is proved, not assumed: the
// attempt's control group is empty, and no process elsewhere names its job and attempt in its
// environment, e.g. one that left the group as root. Without control groups, `process-tree.ts`
// finds the processes.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { ControlGroup } from './control-group.ts';
import type { AttemptName, CommandEnd, CommandOptions, Executor, RunningCommand } from './executor.ts';
import { startGuard } from './guard.ts';
import { countOomKills } from './memory.ts';
import { makePipes } from './pipe.ts';
import { ProcessMemory } from './process-memory.ts';
import { type FoundProcess, lifeOf, ProcessTree } from './process-tree.ts';
import { requireProgram } from './program.ts';
import { notBegun, readStatus, wrap, wrapperDescriptors } from './wrapper.ts';

/**
 * Time to read output after the command ended: a grandchild that keeps the pipe open must not keep
 * the attempt open.
 */
const drainMs = 2_000;
/**
 * Processes that SIGKILL has not ended after this time wait for a disk or a driver, and are
 * reported.
 */
const straysMs = 5_000;
/**
 * Pauses between checks whether all processes are gone: each check reads every process of the
 * machine.
 */
const [lookMs, longestLookMs] = [20, 500];
/** Upper bound of the messages kept of the wrapper, in characters. */
const maxWords = 1_000;

/**
 * Makes the executor. `groupFolder` holds the control groups of attempts; null without control
 * groups.
 */
export function processExecutor(groupFolder: string | null): Executor {
  const groupOf = (attemptId: string) => (groupFolder === null ? null : new ControlGroup(groupFolder, attemptId));
  return {
    guard: (name) => startGuard(name, groupFolder),
    start: (options) => start(options, groupOf(options.attemptId)),
    endStrays: (name, onLeft) => endStrays(name, groupOf(name.attemptId), onLeft),
  };
}

async function start(options: CommandOptions, group: ControlGroup | null): Promise<RunningCommand> {
  const { command, env, cwd, user } = options;
  const [file = '', ...args] = command;
  const wraps = process.platform === 'linux';
  if (wraps) requireProgram(file, { cwd, path: env['PATH'], user });
  const wrapped = wraps ? wrap(command, env, { user, enters: group !== null }) : { file, args, env: { ...env } };
  const pipes = await makePipes(2, user?.uid);
  const killsBefore = await countOomKills();
  let entrance: number | undefined;
  let child: ChildProcess;
  try {
    entrance = group?.make();
    child = spawn(wrapped.file, wrapped.args, {
      cwd,
      env: wrapped.env,
      detached: true, // a session of its own: signals to its process group reach its children too
      stdio: [
        'ignore',
        pipes?.[0]?.writer ?? 'pipe',
        pipes?.[1]?.writer ?? 'pipe',
        ...(wraps ? [entrance ?? ('ignore' as const), 'pipe' as const] : []),
      ],
    });
  } catch (error) {
    pipes?.forEach(({ reader }) => reader.destroy());
    group?.remove();
    throw error;
  } finally {
    pipes?.forEach((pipe) => pipe.release());
    if (entrance !== undefined) closeSync(entrance);
  }
  const outputs = pipes?.map(({ reader }) => reader) ?? [child.stdout, child.stderr].filter((one) => one !== null);
  for (const [index, output] of outputs.entries()) {
    const stream = index === 0 ? 'STDOUT' : 'STDERR';
    output.on('data', (chunk: Buffer) => options.onOutput(stream, chunk));
  }
  const words = child.stdio[wrapperDescriptors.words] as Readable | undefined;
  const ended = endOf(child, outputs, words, killsBefore);
  await Promise.race([once(child, 'spawn'), ended]).catch((error: unknown) => {
    for (const each of [...outputs, words]) each?.destroy();
    group?.remove();
    throw new Error(explain(error, file), { cause: error });
  });
  return running(child, ended, options, group);
}

function running(
  child: ChildProcess,
  ended: Promise<CommandEnd>,
  { env }: CommandOptions,
  group: ControlGroup | null,
): RunningCommand {
  const pid = child.pid ?? 0;
  const life = lifeOf(pid);
  const tree = new ProcessTree({ jobId: env['ASTRAML_JOB_ID'] ?? '', attempt: env['ASTRAML_ATTEMPT'] ?? '', life });
  if (!group) tree.watch();
  const memory = new ProcessMemory();
  const find = async () => (await findLeft(tree, group, pid)) ?? new Map<string, number>();
  return {
    ended,
    life,
    signal(name) {
      const members = group?.listPids() ?? [];
      if (group && name === 'SIGKILL') group.kill();
      else if (group) for (const member of members) kill(member, name);
      else if (pid > 0) kill(-pid, name);
      const isReached = (one: FoundProcess) => (group ? members.includes(one.pid) : one.group === pid);
      void tree.find().then((processes) => processes?.forEach((one) => isReached(one) || kill(one.pid, name)));
    },
    async usage() {
      if (group) {
        const [cpuSeconds, memoryBytes] = [await group.readCpuSeconds(), await group.readMemoryBytes()];
        return { cpuSeconds, memoryBytes: memoryBytes ?? (await memory.sum(await group.findPids())) };
      }
      const { cpuSeconds = null, pids = [] } = tree.measure() ?? {};
      return { cpuSeconds, memoryBytes: await memory.sum(pids) };
    },
    async listLeft() {
      const pids = [...(await find()).values()];
      return Promise.all(pids.map(async (left) => ({ pid: left, command: await commandOf(left) })));
    },
    async isGone() {
      // A process that forks and ends during a check is seen neither itself nor as its child, so it
      // is checked twice.
      if ((await find()).size > 0 || (await find()).size > 0 || group?.isPopulated()) return false;
      tree.stop();
      group?.remove();
      return true;
    },
  };
}

/**
 * Finds the pids of the remaining processes, by their lives where those are known; null where this
 * machine does not tell.
 */
async function findLeft(
  tree: ProcessTree,
  group: ControlGroup | null,
  processGroup = 0,
): Promise<Map<string, number> | null> {
  const processes = await tree.find();
  if (processes === null) return processGroup > 0 && isAlive(-processGroup) ? new Map([['', processGroup]]) : null;
  const members = group?.listPids() ?? [];
  return new Map([
    ...processes.map(({ life, pid }) => [life, pid] as const),
    ...members.map((pid) => [lifeOf(pid) ?? String(pid), pid] as const),
  ]);
}

async function endStrays(
  { jobId, attempt, life }: AttemptName,
  group: ControlGroup | null,
  onLeft?: (pids: number[]) => void,
): Promise<number | null> {
  const tree = new ProcessTree({ jobId, attempt, life });
  const seen = new Set<string>();
  const reportAt = performance.now() + straysMs;
  let isReported = false;
  // A process that forks and ends during a check is not seen, so two checks in a row must find
  // none.
  for (let [misses, pauseMs] = [0, lookMs]; misses < 2; pauseMs = Math.min(2 * pauseMs, longestLookMs)) {
    const left = await findLeft(tree, group);
    if (!left) return null;
    group?.kill();
    for (const [life, pid] of left) {
      kill(pid, 'SIGKILL');
      seen.add(life);
    }
    misses = left.size === 0 && !group?.isPopulated() ? misses + 1 : 0;
    if (left.size > 0 && performance.now() > reportAt && !isReported) {
      isReported = true;
      onLeft?.([...left.values()]);
    }
    if (misses < 2) await sleep(misses > 0 ? lookMs : pauseMs);
  }
  group?.remove();
  return seen.size - (life && seen.has(life) ? 1 : 0); // the wrapper is not a process of the job
}

async function endOf(
  child: ChildProcess,
  outputs: readonly Readable[],
  words: Readable | undefined,
  killsBefore: number | null,
): Promise<CommandEnd> {
  const drained = Promise.allSettled(outputs.map((output) => once(output, 'close')));
  let wrapperOutput = '';
  words?.on('data', (chunk: Buffer) => (wrapperOutput = (wrapperOutput + chunk.toString()).slice(0, maxWords)));
  const wordsRead = words ? once(words, 'close').catch(() => {}) : undefined;
  const [status, signal] = (await once(child, 'exit')) as [number | null, string | null];
  const late = sleep(drainMs, undefined, { ref: false });
  await Promise.race([Promise.all([drained, wordsRead]), late]);
  await setImmediate(); // a busy process reads here what still stands in the pipe
  for (const each of [...outputs, words]) each?.destroy();
  if (status === notBegun && wrapperOutput !== '')
    throw new Error(`The command could not enter its control group: ${wrapperOutput.trim()}`);
  const end = words && status !== null ? readStatus(status, wrapperOutput) : { exitCode: status, signal };
  const kills = await countOomKills();
  const oomKilled = killsBefore !== null && kills !== null && kills > killsBefore;
  return { ...end, ...(oomKilled ? { oomKilled } : {}) };
}

/**
 * Command line of a process, to show it to users. A process may have overwritten it; without one,
 * the name that the kernel keeps.
 */
async function commandOf(pid: number): Promise<string> {
  const read = (file: string) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '');
  const command = (await read('cmdline')).replaceAll('\0', ' ').trim();
  return command || (await read('comm')).trim();
}

function kill(pid: number, signal: 'SIGTERM' | 'SIGKILL'): void {
  try {
    process.kill(pid, signal);
  } catch {
    // the process has ended by itself
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function explain(error: unknown, file: string): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOENT') return `${file} was not found on the runner.`;
  if (code === 'EACCES') return `${file} may not be executed on the runner.`;
  return error instanceof Error ? error.message : String(error);
}
