// Flags that several commands have, and how the value of a flag is read. A value that cannot be
// read is a usage error, which names the flag and what it takes.
import { usage } from './failure.ts';
import { parseDuration } from './text.ts';

export const headerFlag = ['--header', 'print the header also where no terminal reads'] as const;

/** For flags that may be repeated. */
export function collect(value: string, earlier: string[] | undefined): string[] {
  return [...(earlier ?? []), value];
}

/** Checks of numbers on the command line. They run together at the call, to name every mistake. */
export const flagChecks: (() => void)[] = [];

/** Parser of a flag that takes a whole number. */
export function toWhole(flag: string, max: number, min = 0): (text: string) => number {
  return (text) => {
    flagChecks.push(() => toCount(flag, text, { min, max }));
    return Number(text);
  };
}

/** A whole number from 1 on, of a flag. */
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

/** Seconds of a flag's duration. */
export function toSeconds(flag: string, text: string): number {
  const seconds = parseDuration(text);
  if (seconds !== null) return seconds;
  throw usage(`${flag} takes a duration, got "${text}".`, 'For example 90, 90s, 30m, 2h or 1h30m.');
}
