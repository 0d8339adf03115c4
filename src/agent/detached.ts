// Supervisors as processes of their own, one for each attempt. When the runner is killed they go on
// running and reporting, and its next start finds them by their sockets in the work folder.
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

/** The order that a supervisor process reads on its stdin, beside its assignment. */
export const order = z.object({
  url: z.string(),
  token: z.string(),
  redisUrl: z.string(),
  runnerId: z.string(),
  workDir: z.string(),
  place: z.string(),
  virtualGpus: z.boolean(),
  /** Folder for the control groups of attempts; null without control groups. */
  groupFolder: z.string().nullable(),
  /** The user of the command (`user`), and the reason why it must not be started (`refusal`). */
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
/** A message of the runner to a supervisor, as one line of JSON on its socket. */
export const command = z.discriminatedUnion('type', [
  z.object({ type: z.literal('stop'), outcome: z.enum(outcomes), graceMs: z.number().optional() }),
  z.object({ type: z.literal('abandon'), graceMs: z.number() }),
]);

const socketFolder = 'sockets';
/** A supervisor that does not listen within this time is killed. */
const startMs = 15_000;

/** Path of the socket of a supervisor, relative to the work folder. */
export function socketPath(attemptId: string): string {
  return join(socketFolder, attemptId);
}

/**
 * Makes the work folder the current folder, since the paths of the sockets are relative to it. Call
 * it once, before the other functions.
 */
export function enterWorkDir(workDir: string): void {
  mkdirSync(join(workDir, socketFolder), { recursive: true, mode: 0o700 });
  process.chdir(workDir);
}

/** Starts the supervisor of an assignment in a process of its own. */
export function spawnSupervisor(assignment: Assignment, settings: Order): RunningAttempt {
  const folder = join(settings.workDir, 'attempts', assignment.attemptId);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const log = openSync(join(folder, 'supervisor.log'), 'a', 0o600);
  const child = spawn(process.execPath, [fileURLToPath(new URL('./supervisor-process.ts', import.meta.url))], {
    detached: true,
    stdio: ['pipe', log, log],
  });
  closeSync(log);
  child.on('error', () => {});
  child.stdin?.on('error', () => {});
  child.stdin?.end(JSON.stringify({ ...settings, assignment }));
  child.unref();
  return attached(assignment.attemptId, assignment.gpus, reach(assignment.attemptId, child));
}

/**
 * Finds supervisors that an earlier process of the runner started and that still run; sockets of
 * dead ones are removed. A supervisor that stands still is found too: the kernel accepts the
 * connection for it.
 */
export async function findSupervisors(): Promise<RunningAttempt[]> {
  const attempts: RunningAttempt[] = [];
  for (const name of await readdir(socketFolder).catch(() => [])) {
    const socket = await tryConnect(name);
    if (!socket) {
      rmSync(socketPath(name), { force: true });
      continue;
    }
    // A supervisor without a file yet is new: the gateway knows its GPUs and gives them to no other
    // job.
    const gpus = (await readAttemptFile(join('attempts', name)))?.gpus ?? [];
    attempts.push(attached(name, gpus, Promise.resolve(socket)));
  }
  return attempts;
}

/**
 * Connects to a supervisor that was just started. Null when it ended before it listened, or did not
 * listen in time and was killed.
 */
async function reach(attemptId: string, child: ChildProcess): Promise<Socket | null> {
  const deadline = performance.now() + startMs;
  while (child.exitCode === null && child.signalCode === null && performance.now() < deadline) {
    const socket = await tryConnect(attemptId);
    if (socket) return socket;
    await sleep(20);
  }
  child.kill('SIGKILL'); // a supervisor that the runner cannot reach must start no command
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

/**
 * Represents an attempt over its supervisor's socket: when that closes, the supervisor has ended.
 */
function attached(attemptId: string, gpus: readonly number[], reached: Promise<Socket | null>): RunningAttempt {
  const send = (message: z.input<typeof command>) =>
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
    acknowledge() {}, // the supervisor process listens to the gateway itself
    ask() {},
    stop: (outcome: Outcome, graceMs?: number) => send({ type: 'stop', outcome, graceMs }),
    abandon: (graceMs) => send({ type: 'abandon', graceMs }),
  };
}
