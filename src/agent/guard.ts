// Starts the guard of a command that must never run twice: a process of its own that kills all
// processes of the attempt when the supervisor was killed, or stands still beyond its lease.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { AttemptName, Guard } from './executor.ts';

/** Milliseconds of a clock that all processes of the machine share and that is never set. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** A message to the guard, as one line of JSON on its stdin. Times are by `monotonicMs`. */
export type GuardWord = { endAtMs: number } | { life: string | null };

/** Starts a guard; rejects when its process cannot be started. */
export async function startGuard(name: AttemptName, groupFolder: string | null): Promise<Guard> {
  const file = fileURLToPath(new URL('./guard-process.ts', import.meta.url));
  const child = spawn(process.execPath, [file, JSON.stringify({ name, groupFolder })], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  await once(child, 'spawn');
  child.unref();
  child.stdin.on('error', () => {}); // the guard was killed
  if (child.stdin instanceof Socket) child.stdin.unref();
  const say = (word: GuardWord) => void child.stdin.write(`${JSON.stringify(word)}\n`);
  return {
    endAt: (time) => say({ endAtMs: monotonicMs() + time - performance.now() }),
    know: (life) => say({ life }),
    release: () => void child.stdin.end(),
  };
}
