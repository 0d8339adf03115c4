// Compares how far streams have come with how far they were read.
import type { StreamPositions } from './commit.ts';

/** Returns, for each stream in `seen`, the higher of its two positions. */
export function highest(seen: StreamPositions, announced: StreamPositions): StreamPositions {
  return Object.fromEntries(Object.entries(seen).map(([name, head]) => [name, Math.max(head, announced[name] ?? 0)]));
}

/** Whether a head lies beyond the position in `seen`, so that unread rows exist. */
export function isBeyond(heads: StreamPositions, seen: StreamPositions): boolean {
  for (const name in seen) if ((heads[name] ?? 0) > (seen[name] ?? 0)) return true;
  return false;
}
