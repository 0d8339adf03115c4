// Leak check of a test file: at its end, no socket, server, timer, child or thread is open that was
// not open when this file was loaded. Import it first; call it last in the last `after`.
import { setTimeout as sleep } from 'node:timers/promises';

const ignored = new Set([
  'TTYWrap',
  'Immediate',
  'FSReqCallback',
  'FSReqPromise',
  'CloseReq',
  'ShutdownWrap',
  'WriteWrap',
]);
const baseline = countResources();

/**
 * Waits up to `timeoutMs` (2 s) for resources that are closing, then throws with the names of those
 * that are open.
 */
export async function expectNoLeaks(options: { timeoutMs?: number } = {}): Promise<void> {
  const deadline = performance.now() + (options.timeoutMs ?? 2_000);
  for (;;) {
    const left = listLeft();
    if (left.length === 0) return;
    if (performance.now() >= deadline) throw new Error(`left open: ${left.join(', ')}`);
    await sleep(20);
  }
}

function listLeft(): string[] {
  const left: string[] = [];
  for (const [name, count] of countResources()) {
    const more = count - (baseline.get(name) ?? 0);
    if (more > 0) left.push(`${more} × ${name}`);
  }
  return left;
}

/** Counts the resources that keep the event loop alive, by kind. */
function countResources(): Map<string, number> {
  const counts = new Map<string, number>();
  for (const name of process.getActiveResourcesInfo()) {
    if (!ignored.has(name)) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}
