// A server process of our own for tests: on a free loopback port, its data in a temporary folder. It never outlives
// the process that started it, and a test may kill it and start it again on the same port and data.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { guard } from './guard.ts';
import { freePort } from './port.ts';
import { isAlive, listChildren } from './processes.ts';
import { until } from './until.ts';

export interface ServerPlan {
  name: string;
  /** Exists already; removed by `stop`. The log is written to `log` in it. */
  folder: string;
  owner?: Owner;
  command(port: number): { file: string; args: string[] };
  /** Throws while the server does not answer yet. */
  check(port: number): Promise<void>;
  /** Ends it in order, keeping what it was told: used by `restart`. */
  endSignal: NodeJS.Signals;
  /** Ends it fast, leaving nothing behind outside the folder: used by `stop` and when we are gone. */
  stopSignal: 'QUIT' | 'TERM' | 'KILL';
  /** After a stop, before the folder is removed. */
  cleanUp?(): void;
}

export interface Owner {
  uid: number;
  gid: number;
}

export interface Server {
  port: number;
  /** Process id of the server; undefined while it is down. */
  pid(): number | undefined;
  log(): string;
  /**
   * Sends a signal to the server and its own children. After one that ends it (SIGKILL, which is the default,
   * SIGTERM, SIGINT, SIGQUIT) resolves once all of them are gone; SIGSTOP and SIGCONT make it hang and go on.
   */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Ends it in order if it runs, and starts it again: the same port, the same data. Resolves when it answers. */
  restart(): Promise<void>;
  /** Ends it and removes its folder. Twice is fine. */
  stop(): Promise<void>;
}

const startMs = 30_000;
const endMs = 10_000;

export async function startServer(plan: ServerPlan): Promise<Server> {
  const watchdog = guard({ name: plan.name, signal: plan.stopSignal, folder: plan.folder });
  const logFile = join(plan.folder, 'log');
  let port = await freePort();
  let child: ChildProcess | undefined;
  let stopped: Promise<void> | undefined;

  try {
    await launch(true);
  } catch (error) {
    await stop();
    throw error;
  }
  return { port, pid: () => child?.pid, log, kill, restart, stop: () => (stopped ??= stop()) };

  async function launch(mayMove: boolean): Promise<void> {
    const deadline = Date.now() + startMs;
    for (;;) {
      const started = spawnOne();
      if (await answers(started, deadline)) return;
      const end = log().slice(-2_000);
      await signalAll('SIGKILL');
      const inTheWay = /address already in use|could not bind|still in use/i.test(end);
      if (!inTheWay || Date.now() > deadline) throw new Error(`${plan.name} did not start:\n${end}`);
      if (mayMove) port = await freePort();
      await sleep(100);
    }
  }

  function spawnOne(): ChildProcess {
    const { file, args } = plan.command(port);
    const output = openSync(logFile, 'a', 0o644);
    const started = spawn(file, args, {
      ...plan.owner,
      cwd: plan.folder,
      env: { PATH: process.env.PATH, TMPDIR: process.env.TMPDIR, LC_ALL: 'C', TZ: 'UTC' },
      detached: true,
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    started.unref(); // a forgotten server does not hold the process: the guard says so at its end
    started.on('error', () => {});
    started.once('exit', () => {
      if (child !== started) return;
      child = undefined;
      watchdog.watch(undefined);
    });
    child = started;
    watchdog.watch(started.pid);
    return started;
  }

  async function answers(started: ChildProcess, deadline: number): Promise<boolean> {
    while (child === started && started.pid !== undefined && Date.now() < deadline) {
      try {
        await plan.check(port);
        return true;
      } catch {
        await sleep(20);
      }
    }
    return false;
  }

  async function signalAll(signal: NodeJS.Signals): Promise<void> {
    const target = child;
    if (target?.pid === undefined) return;
    const ending = ['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGQUIT'].includes(signal);
    // A child left alone by a killed parent would go on for a moment: a cut takes all of them, an order only the first.
    const children =
      signal === 'SIGTERM' || signal === 'SIGINT' || signal === 'SIGQUIT' ? [] : listChildren(target.pid);
    const gone = ending ? once(target, 'exit', { signal: AbortSignal.timeout(endMs) }) : undefined;
    target.kill(signal);
    for (const pid of children) trySignal(pid, signal);
    if (!gone) return;
    target.ref(); // it holds the process while somebody waits for its end
    try {
      await gone;
    } finally {
      target.unref();
    }
    if (children.length > 0) await until(() => !children.some(isAlive), { what: `the end of ${plan.name}` });
  }

  async function kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    await signalAll(signal);
  }

  async function restart(): Promise<void> {
    if (stopped) throw new Error(`${plan.name} was stopped`);
    await signalAll(plan.endSignal);
    await launch(false);
  }

  async function stop(): Promise<void> {
    await signalAll('SIGCONT');
    try {
      await signalAll(`SIG${plan.stopSignal}`);
    } catch {
      await signalAll('SIGKILL');
    }
    plan.cleanUp?.();
    rmSync(plan.folder, { recursive: true, force: true, maxRetries: 5 });
    watchdog.release();
  }

  function log(): string {
    return readFileSync(logFile, 'utf8');
  }
}

function trySignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // it ended meanwhile
  }
}
