// A server process for tests, on a free loopback port with its data in a temporary folder. It never
// outlives the process that started it. A test may kill it and restart it on the same port and
// data.
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
  /** Existing folder, which `stop` removes. The log is its file `log`. */
  folder: string;
  owner?: Owner;
  command(port: number): { file: string; args: string[] };
  /** Throws while the server does not answer yet. */
  check(port: number): Promise<void>;
  /** Signal of `restart`: ends the server in order and keeps its data. */
  endSignal: NodeJS.Signals;
  /**
   * Signal of `stop` and of the guard: ends the server fast and leaves nothing outside of the
   * folder.
   */
  stopSignal: 'QUIT' | 'TERM' | 'KILL';
  /** Runs after a stop, before the folder is removed. */
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
   * Sends a signal to the server and its children. SIGKILL, which is the default, SIGTERM, SIGINT
   * and SIGQUIT end it: the promise resolves once all of them are gone. SIGSTOP makes it hang,
   * SIGCONT go on.
   */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /**
   * Ends the server in order if it runs, and starts it on the same port and data. Resolves when it
   * answers.
   */
  restart(): Promise<void>;
  /** Ends the server and removes its folder. May be called twice. */
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
    started.unref(); // a forgotten server does not keep the process alive; the guard reports it
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
    // Children of a killed server live on for a moment, so SIGKILL goes to all of them. A signal
    // for an orderly end goes only to the server, which ends its children.
    const children =
      signal === 'SIGTERM' || signal === 'SIGINT' || signal === 'SIGQUIT' ? [] : listChildren(target.pid);
    const gone = ending ? once(target, 'exit', { signal: AbortSignal.timeout(endMs) }) : undefined;
    target.kill(signal);
    for (const pid of children) trySignal(pid, signal);
    if (!gone) return;
    target.ref(); // keeps the process alive until the server has ended
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
    // the process ended meanwhile
  }
}
