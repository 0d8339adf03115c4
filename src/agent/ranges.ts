// Places in a text, and a text without what stands there.

/** From `from` up to, not including, `to`. */
export type Range = { from: number; to: number };

export const redacted = '[REDACTED]';

/** The text up to `end`, which ranges may cross, with each range replaced; ranges that overlap are replaced as one. */
export function replaceRanges(text: string, ranges: readonly Range[], end = text.length): string {
  let result = '';
  let copied = 0;
  for (const { from, to } of merged(ranges)) {
    if (from >= end) break;
    result += text.slice(copied, from) + redacted;
    copied = to;
  }
  return copied === 0 ? text.slice(0, end) : result + text.slice(copied, Math.max(copied, end));
}

function merged(ranges: readonly Range[]): Range[] {
  const result: Range[] = [];
  for (const { from, to } of ranges.toSorted((a, b) => a.from - b.from)) {
    const last = result.at(-1);
    if (last && from < last.to) last.to = Math.max(last.to, to);
    else result.push({ from, to });
  }
  return result;
}
