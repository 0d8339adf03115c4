// Long work on numbers in pieces, so that the process answers others in between: a generator yields where it may pause.
import { giveWay } from '../turns.ts';

/** Yields often: after some milliseconds at most. */
export type Work<Result> = Generator<undefined, Result, undefined>;

/** Simple steps between two yields of a loop. */
export const piece = 8_192;

/** Does work to its end, without pause. */
export function finishNow<Result>(work: Work<Result>): Result {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}

/** Does work to its end, in turns with whatever else the process has to do; rejects when the signal is aborted. */
export async function finishInTurns<Result>(work: Work<Result>, signal?: AbortSignal): Promise<Result> {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
    const turn = giveWay();
    if (!turn) continue;
    await turn;
    signal?.throwIfAborted();
  }
}

/**
 * The items sorted by `before`, which says whether the first comes before the second; the array given is written over.
 * Items that are equal keep their order.
 */
export function* sortInPieces(items: Uint32Array, before: (a: number, b: number) => boolean): Work<Uint32Array> {
  for (let start = 0; start < items.length; start += piece) {
    yield;
    items.subarray(start, start + piece).sort((a, b) => (before(a, b) ? -1 : before(b, a) ? 1 : 0));
  }
  let [from, to]: [Uint32Array, Uint32Array] = [items, new Uint32Array(items.length)];
  for (let width = piece; width < items.length; width *= 2) {
    for (let start = 0; start < items.length; start += 2 * width) {
      yield* merge(from, to, { start, middle: start + width, end: start + 2 * width }, before);
    }
    [from, to] = [to, from];
  }
  return from;
}

function* merge(
  from: Uint32Array,
  to: Uint32Array,
  { start, middle, end }: { start: number; middle: number; end: number },
  before: (a: number, b: number) => boolean,
): Work<void> {
  const [leftEnd, rightEnd] = [Math.min(middle, from.length), Math.min(end, from.length)];
  let [left, right] = [start, leftEnd];
  for (let at = start; at < rightEnd; at++) {
    if (at % piece === 0) yield;
    const takesRight = left >= leftEnd || (right < rightEnd && before(from[right] ?? 0, from[left] ?? 0));
    to[at] = from[takesRight ? right++ : left++] ?? 0;
  }
}
