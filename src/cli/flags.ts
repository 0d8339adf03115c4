// Flags of several commands, and parsers for their values. An invalid value is a usage error, which
// names the flag and the values that it takes.
import { usage } from './failure.ts';
import { parseDuration } from './text.ts';

export const headerFlag = ['--header', 'print the header also where no terminal reads'] as const;

/** Parser of a flag that may be repeated: collects its values in a list. */
export function collect(value: string, earlier: string[] | undefined): string[] {
  return [...(earlier ?? []), value];
}

/**
 * Checks of numeric flags. They run together when the command runs, so that one error names every
 * mistake.
 */
export const flagChecks: (() => void)[] = [];

/** Makes the parser of a flag that takes a whole number. */
export function toWhole(flag: string, max: number, min = 0): (text: string) => number {
  return (text) => {
    flagChecks.push(() => toCount(flag, text, { min, max }));
    return Number(text);
  };
}

/** Returns the whole number of a flag; throws a usage error outside of `min` to `max`. */
export function toCount(flag: string, text: string, { min = 1, max = Infinity } = {}): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= min && count <= max) return count;
  const range = max === Infinity ? `from ${min} on` : `from ${min} to ${max}`;
  throw usage(`${flag} takes a whole number ${range}, got "${text}".`);
}

export function toNumber(flag: string, text: string): number {
  const number = Number(text);
  if (text.trim() !== '' && Number.isFinite(number)) return number;
  throw usage(`${flag} takes a number, got "${text}".`);
}

/** Returns the seconds of a flag's duration, e.g. 5400 for `1h30m`. */
export function toSeconds(flag: string, text: string): number {
  const seconds = parseDuration(text);
  if (seconds !== null) return seconds;
  throw usage(`${flag} takes a duration, got "${text}".`, 'For example 90, 90s, 30m, 2h or 1h30m.');
}
