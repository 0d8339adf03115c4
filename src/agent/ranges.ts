// Places in a text, and a text without what stands there.

/** From `from` up to, not including, `to`. */
export type Range = { from: number; to: number };

export const redacted = '[REDACTED]';

/** The text up to `end`, which ranges may cross, with each range replaced; ranges that overlap are replaced as one. */
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
