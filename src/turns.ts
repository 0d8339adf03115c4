// Turns for long work. All of it shares one turn of 10 ms in each round of the event loop, so that
// connections, probes and short operations are served between two turns, however many long
// operations run.

/** Length of a turn, in milliseconds. */
const turnMs = 10;
/**
 * Upper bound of operations that go on in one turn, since the work of each until its next `giveWay`
 * is unknown.
 */
const maxPerTurn = 8;

let turnEndsAt = 0;
const waiting: (() => void)[] = [];

/**
 * Returns undefined while the current turn lasts, else a promise of the next turn. Long work calls
 * it after each piece of a few milliseconds: `const turn = giveWay(); if (turn) await turn;`.
 */
export function giveWay(): Promise<void> | undefined {
  if (performance.now() < turnEndsAt) return undefined;
  return new Promise((resolve) => {
    if (waiting.push(resolve) === 1) setImmediate(beginTurn);
  });
}

function beginTurn(): void {
  turnEndsAt = performance.now() + turnMs;
  goOn(maxPerTurn);
}

/**
 * Resumes the operation that has waited longest; after its first piece the next one, until the turn
 * ends.
 */
function goOn(remaining: number): void {
  waiting.shift()?.();
  if (waiting.length === 0) return;
  if (remaining > 1 && performance.now() < turnEndsAt) queueMicrotask(() => goOn(remaining - 1));
  else setImmediate(beginTurn);
}

/** Yields the items one by one, in turns. Short lists need no turns: pass them on as they are. */
export async function* inTurns<T>(items: readonly T[]): AsyncGenerator<T, void, undefined> {
  for (const item of items) {
    const turn = giveWay();
    if (turn) await turn;
    yield item;
  }
}
