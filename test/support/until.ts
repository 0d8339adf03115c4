// Waits until a condition holds, by testing it again and again. Prefer an event where there is one.
import { setTimeout as sleep } from 'node:timers/promises';

type Falsy = false | 0 | '' | null | undefined;

/**
 * Resolves with the first truthy result. Rejects after `timeoutMs` (5 s) with `what`, or when the
 * condition throws.
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  options: { timeoutMs?: number; everyMs?: number; what?: string } = {},
): Promise<Exclude<T, Falsy>> {
  const { timeoutMs = 5_000, everyMs = 20, what = 'the condition' } = options;
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const answer = await condition();
    if (holds(answer)) return answer;
    if (performance.now() >= deadline) throw new Error(`${what} did not hold within ${timeoutMs} ms`);
    await sleep(everyMs);
  }
}

function holds<T>(answer: T): answer is Exclude<T, Falsy> {
  return Boolean(answer);
}
