// Ranges of a text, and their replacement by `[REDACTED]`.

/** Indexes of characters: from `from` up to, but not including, `to`. */
export type Range = { from: number; to: number };

export const redacted = '[REDACTED]';

/**
 * Returns the text up to `end` with each range replaced. Ranges may cross `end`; overlapping ranges
 * are replaced as one.
 */
export function replaceRanges(text: string, ranges: readonly Range[], end = text.length): string {
  if (ranges.length === 0) return text.slice(0, end);
  const pieces: string[] = [];
  let copied = 0;
  for (const { from, to } of ranges.toSorted((a, b) => a.from - b.from)) {
    if (from >= end) break;
    if (copied === 0 || from >= copied) pieces.push(text.slice(copied, from), redacted);
    copied = Math.max(copied, to);
  }
  pieces.push(text.slice(copied, Math.max(copied, end)));
  return pieces.join('');
}
