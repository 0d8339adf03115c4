// A Node process that a test starts, with its output and its end. It never outlives the test; a
// child that the test forgot to end fails the test file.
import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { createInterface } from 'node:readline';
import { guard } from './guard.ts';

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface Child {
  pid: number;
  /** Lines of stdout and stderr so far, in the order in which they came. */
  output(): string;
  /**
   * Resolves with the first matching line, printed before or later. Rejects after `timeoutMs` (10
   * s) or when the child ends.
   */
  untilLine(pattern: RegExp, options?: { timeoutMs?: number }): Promise<RegExpExecArray>;
  /** Resolves when the child has ended and its output is read; rejects after `timeoutMs` (30 s). */
  untilEnd(options?: { timeoutMs?: number }): Promise<Ended>;
  /** Sends a signal to the child only, not to its own children. */
  kill(signal: NodeJS.Signals): void;
  /**
   * Sends SIGTERM, and after `timeoutMs` (10 s) SIGKILL to the whole process group. May be called
   * twice.
   */
  stop(options?: { timeoutMs?: number }): Promise<Ended>;
}

export interface ChildOptions {
  /** Variables over those of this process; undefined removes one. */
  env?: Record<string, string | undefined>;
  cwd?: string;
}

/**
 * Starts a child with the same Node as this process. `args` are those of `node`: a script and its
 * arguments.
 */
export function spawnNode(args: string[], options: ChildOptions = {}): Child {
  const child = spawn(process.execPath, args, {
    cwd: options.cwd,
    // With NODE_TEST_CONTEXT, a test runner in the child would take itself for a part of this run.
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, ...options.env },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const pid = child.pid ?? fail(`node ${args.join(' ')} did not start`);
  const watchdog = guard({ name: `node ${args.join(' ')}` });
  watchdog.watch(-pid);

  const lines: string[] = [];
  const events = new EventEmitter<{ line: []; end: [] }>().setMaxListeners(0);
  let ended: Ended | undefined;
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream, crlfDelay: Infinity }).on('line', (line) => {
      lines.push(line);
      events.emit('line');
    });
  }
  child.once('exit', () => watchdog.release());
  child.once('close', (code, signal) => {
    ended = { code, signal };
    // readline emits a last line without a line feed only after its stream has ended
    setImmediate(() => events.emit('end'));
  });
  setHeld(false);

  return { pid, output: () => lines.join('\n'), untilLine, untilEnd, kill: (signal) => void child.kill(signal), stop };

  async function untilLine(pattern: RegExp, { timeoutMs = 10_000 } = {}): Promise<RegExpExecArray> {
    const timeout = AbortSignal.timeout(timeoutMs);
    for (let next = 0; ;) {
      for (; next < lines.length; next += 1) {
        const match = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, '')).exec(lines[next] ?? '');
        if (match) return match;
      }
      if (ended)
        throw new Error(`the child ended (${describe(ended)}) without a line ${pattern}:\n${lines.join('\n')}`);
      await either(['line', 'end'], timeout, `no line ${pattern} within ${timeoutMs} ms`);
    }
  }

  async function untilEnd({ timeoutMs = 30_000 } = {}): Promise<Ended> {
    if (!ended) await either(['end'], AbortSignal.timeout(timeoutMs), `no end within ${timeoutMs} ms`);
    if (!ended) throw new Error('the child did not end');
    return ended;
  }

  async function stop({ timeoutMs = 10_000 } = {}): Promise<Ended> {
    if (ended) return ended;
    child.kill('SIGTERM');
    try {
      return await untilEnd({ timeoutMs });
    } catch {
      process.kill(-pid, 'SIGKILL');
      return untilEnd({ timeoutMs });
    }
  }

  async function either(names: ('line' | 'end')[], timeout: AbortSignal, complaint: string): Promise<void> {
    const other = new AbortController();
    const signal = AbortSignal.any([timeout, other.signal]);
    setHeld(true);
    try {
      await Promise.race(names.map((name) => once(events, name, { signal })));
    } catch (error) {
      throw new Error(`${complaint}:\n${lines.join('\n')}`, { cause: error });
    } finally {
      other.abort();
      setHeld(false);
    }
  }

  // The child keeps this process alive only while a test waits for it, so that a forgotten child
  // does not make the test file hang.
  function setHeld(held: boolean): void {
    for (const handle of [child, child.stdout, child.stderr]) {
      if ('ref' in handle && 'unref' in handle) (held ? handle.ref : handle.unref).call(handle);
    }
  }
}

function fail(message: string): never {
  throw new Error(message);
}

function describe({ code, signal }: Ended): string {
  return signal ?? `exit ${code}`;
}
