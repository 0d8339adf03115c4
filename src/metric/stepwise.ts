// Long work on numbers in pieces, so that the process serves others in between: the work is a
// generator that yields where it may pause.
import { giveWay } from '../turns.ts';

/** Long work. It yields after some milliseconds at most, and returns its result. */
export type Work<Result> = Generator<undefined, Result, undefined>;

/** Number of simple loop steps between two yields: a few milliseconds at most. */
export const piece = 8_192;

/** Runs work to its end without a pause. */
export function finishNow<Result>(work: Work<Result>): Result {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}

/**
 * Runs work to its end in turns of 10 ms, between which the process serves others. Rejects when the
 * signal is aborted.
 */
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
 * Sorts items by `before(a, b)`, which says whether a comes before b; equal items keep their order.
 * Returns a sorted array, and overwrites the one that was passed.
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
  for (let index = start; index < rightEnd; index++) {
    if (index % piece === 0) yield;
    const takesRight = left >= leftEnd || (right < rightEnd && before(from[right] ?? 0, from[left] ?? 0));
    to[index] = from[takesRight ? right++ : left++] ?? 0;
  }
}
