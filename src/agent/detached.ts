// Supervisors as processes of their own, one an attempt: a killed runner leaves them running and reporting, and the next
// start finds them by their sockets in the work folder.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, openSync, closeSync, rmSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { Assignment } from '../protocol/control.ts';
import { type Outcome, readAttemptFile, type RunningAttempt } from './attempt.ts';

/** What a supervisor process is told on its stdin, beside its assignment. */
export const order = z.object({
  url: z.string(),
  token: z.string(),
  redisUrl: z.string(),
  runnerId: z.string(),
  workDir: z.string(),
  place: z.string(),
  virtualGpus: z.boolean(),
  /** Where attempts have their control groups; null where there are none. */
  groupFolder: z.string().nullable(),
  /** Under whom the command runs, and why it must not be started. */
  user: z.object({ uid: z.number(), groups: z.array(z.number()).readonly(), home: z.string() }).optional(),
  refusal: z.string().optional(),
  heartbeatMs: z.number(),
  leaseMs: z.number(),
  whenCut: z.enum(['continue', 'stop']),
  graceMs: z.number(),
  spoolBytes: z.number().optional(),
});
export type Order = z.output<typeof order>;

const outcomes = ['EXITED', 'SIGNALLED', 'NOT_STARTED', 'TIMEOUT', 'CANCELLED', 'DRAINED', 'CUT_OFF'] as const;
/** What a runner says to a supervisor, one JSON object a line. */
export const command = z.discriminatedUnion('type', [
  z.object({ type: z.literal('stop'), outcome: z.enum(outcomes), graceMs: z.number().optional() }),
  z.object({ type: z.literal('abandon'), graceMs: z.number() }),
]);

const socketFolder = 'sockets';
const startMs = 15_000;

/** Where a supervisor listens, seen from the work folder. */
export function socketPath(attemptId: string): string {
  return join(socketFolder, attemptId);
}

/** Makes the work folder the current one, since the sockets are named from there; call it once, before the others. */
export function enterWorkDir(workDir: string): void {
  mkdirSync(join(workDir, socketFolder), { recursive: true, mode: 0o700 });
  process.chdir(workDir);
}

/** Starts the supervisor of an assignment in a process of its own. */
export function spawnSupervisor(assignment: Assignment, given: Order): RunningAttempt {
  const folder = join(given.workDir, 'attempts', assignment.attemptId);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const log = openSync(join(folder, 'supervisor.log'), 'a', 0o600);
  const child = spawn(process.execPath, [fileURLToPath(new URL('./supervisor-process.ts', import.meta.url))], {
    detached: true,
    stdio: ['pipe', log, log],
  });
  closeSync(log);
  child.on('error', () => {});
  child.stdin?.on('error', () => {});
  child.stdin?.end(JSON.stringify({ ...given, assignment }));
  child.unref();
  return attached(assignment.attemptId, assignment.gpus, reach(assignment.attemptId, child));
}

/**
 * Supervisors that an earlier life of the runner started and that still run; the sockets of dead ones go. None has to say
 * anything: the kernel connects also to one that stands still, and it hears us when it wakes.
 */
export async function findSupervisors(): Promise<RunningAttempt[]> {
  const found: RunningAttempt[] = [];
  for (const name of await readdir(socketFolder).catch(() => [])) {
    const socket = await tryConnect(name);
    if (!socket) {
      rmSync(socketPath(name), { force: true });
      continue;
    }
    // Until it has written its file, only the gateway knows its GPUs, and gives them to nobody else.
    const gpus = (await readAttemptFile(join('attempts', name)))?.gpus ?? [];
    found.push(attached(name, gpus, Promise.resolve(socket)));
  }
  return found;
}

/** The socket of a process that was just started; null when it ended before it listened, or was ended for it. */
async function reach(attemptId: string, child: ChildProcess): Promise<Socket | null> {
  const deadline = performance.now() + startMs;
  while (child.exitCode === null && child.signalCode === null && performance.now() < deadline) {
    const socket = await tryConnect(attemptId);
    if (socket) return socket;
    await sleep(20);
  }
  child.kill('SIGKILL'); // one that nobody can reach must start no command
  return null;
}

async function tryConnect(attemptId: string): Promise<Socket | null> {
  const socket = connect(socketPath(attemptId));
  try {
    await once(socket, 'connect');
    return socket.on('error', () => {});
  } catch {
    socket.destroy();
    return null;
  }
}

/** An attempt over its supervisor's socket: when that closes, the supervisor has ended. */
function attached(attemptId: string, gpus: readonly number[], reached: Promise<Socket | null>): RunningAttempt {
  const say = (message: z.input<typeof command>) =>
    void reached.then((socket) => socket?.write(`${JSON.stringify(message)}\n`));
  const run = async () => {
    const socket = await reached;
    socket?.resume();
    if (socket && !socket.closed) await once(socket, 'close');
    rmSync(socketPath(attemptId), { force: true });
  };
  return {
    attemptId,
    gpus,
    done: run(),
    acknowledge() {}, // it hears the gateway itself
    ask() {},
    stop: (outcome: Outcome, graceMs?: number) => say({ type: 'stop', outcome, graceMs }),
    abandon: (graceMs) => say({ type: 'abandon', graceMs }),
  };
}
