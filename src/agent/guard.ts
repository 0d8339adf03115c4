// The guard of a command that must never run twice: a process of its own, which ends all processes of the attempt when
// the supervisor cannot, since it was killed, or stands still for longer than its lease.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { Guard } from './executor.ts';

/** Milliseconds of a clock that all processes of the machine share and that nobody sets. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Rejects when it cannot be started. */
export async function startGuard(jobId: string, attempt: string): Promise<Guard> {
  const file = fileURLToPath(new URL('./guard-process.ts', import.meta.url));
  const child = spawn(process.execPath, [file, jobId, attempt], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  await once(child, 'spawn');
  child.unref();
  child.stdin.on('error', () => {}); // it was killed
  if (child.stdin instanceof Socket) child.stdin.unref();
  return {
    endAt: (time) => void child.stdin.write(`${monotonicMs() + time - performance.now()}\n`),
    release: () => void child.stdin.end(),
  };
}
