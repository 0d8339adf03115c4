// A Node process that a test starts and watches: its lines, its end. It never outlives the test, and one that the
// test forgot to end makes the test file fail.
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
  /** Lines of stdout and stderr so far, in the order they came. */
  output(): string;
  /** The first line that matches, already printed or to come; rejects after `timeoutMs` (10 s) or when the child ends. */
  untilLine(pattern: RegExp, options?: { timeoutMs?: number }): Promise<RegExpExecArray>;
  /** Resolves when it ended and all its output was read; rejects after `timeoutMs` (30 s). */
  untilEnd(options?: { timeoutMs?: number }): Promise<Ended>;
  /** To the child alone, not to those it started. */
  kill(signal: NodeJS.Signals): void;
  /** SIGTERM, and after `timeoutMs` (10 s) SIGKILL for its whole group. Twice is fine. */
  stop(options?: { timeoutMs?: number }): Promise<Ended>;
}

export interface ChildOptions {
  /** On top of our own environment; undefined takes a variable away. */
  env?: Record<string, string | undefined>;
  cwd?: string;
}

/** `args` as for `node`: a script and its arguments. Runs the same Node as this process. */
export function spawnNode(args: string[], options: ChildOptions = {}): Child {
  const child = spawn(process.execPath, args, {
    cwd: options.cwd,
    // NODE_TEST_CONTEXT would make a test runner in the child believe that it is a part of this run.
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
    // readline hands out the last line, one without a line feed, only after its stream has ended
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

  // It holds this process only while somebody waits for it: a forgotten one must not make the test file hang.
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
