// "Did you mean …?": the closest known name, when it is close enough to be a slip of the hand.

/**
 * `maxCompared` bounds the letters that are compared: the time for the distance of two names grows
 * with the product of their lengths, and a longer name is no slip of the hand.
 */
const maxCompared = 64;
const maxCandidates = 1_000;

export function closest(name: string, candidates: readonly string[]): string | undefined {
  if (name.length > 2 * maxCompared) return undefined;
  const plain = (text: string) => text.toLowerCase().replace(/[^a-z0-9]/g, '');
  const plainName = plain(name).slice(0, maxCompared);
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(plainName.length / 3)) + 0.5;
  for (const candidate of candidates.slice(0, maxCandidates)) {
    const compared = plain(candidate.slice(0, 2 * maxCompared));
    if (Math.abs(compared.length - plainName.length) >= bestDistance) continue;
    const distance = editDistance(plainName, compared);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Insertions, deletions, substitutions and swaps of neighbours from one text to the other. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substituted = (last[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      let best = Math.min(substituted, (last[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1);
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) best = Math.min(best, (beforeLast[column - 2] ?? 0) + 1);
      current[column] = best;
    }
    [beforeLast, last] = [last, current];
  }
  return last[b.length] ?? 0;
}
