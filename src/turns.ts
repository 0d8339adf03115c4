// Turns: all long work of the process shares them, one of 10 ms in each round of the event loop. However many operations
// have long work at once, connections, probes and short operations are served between two turns.

/** How long work goes on before others are served. */
const turnMs = 10;
/** Operations that go on in one turn, at most: what each does before it asks again is not known before. */
const maxPerTurn = 8;

let turnEndsAt = 0;
const waiting: (() => void)[] = [];

/**
 * Undefined while the current turn lasts, else a promise of the next one. Long work asks after each piece of some
 * milliseconds at most: `const turn = giveWay(); if (turn) await turn;`.
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

/** Lets the one that has waited longest go on, and after its first piece the next one, as long as the turn lasts. */
function goOn(left: number): void {
  waiting.shift()?.();
  if (waiting.length === 0) return;
  if (left > 1 && performance.now() < turnEndsAt) queueMicrotask(() => goOn(left - 1));
  else setImmediate(beginTurn);
}

/** Items one after the other, in turns: whoever completes them gives way in between. Hand a short list over as it is. */
export async function* inTurns<T>(items: readonly T[]): AsyncGenerator<T, void, undefined> {
  for (const item of items) {
    const turn = giveWay();
    if (turn) await turn;
    yield item;
  }
}
