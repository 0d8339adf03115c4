// Texts for people. Text of others is cleaned before it reaches a terminal, so that it cannot set
// titles, links or the clipboard, move the cursor or hide its direction. Times, durations and
// numbers are short.
import { stripVTControlCharacters } from 'node:util';

/* eslint-disable no-control-regex */
const commandStrings = /(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x9c|\x1b\\|$|(?=\x1b))/g;
const sequences = /(?:\x1b\[|\x9b)([0-?]*)([ -/]*)([@-~]?)|\x1b[ -/]*[0-~]?/g;
const controls = /[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]/g;
const lineEnds = /[\n\r]+/g;
const whiteControls = /[\t\n\r]+/g;
/* eslint-enable no-control-regex */
const hiddenDirections = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/**
 * Cleans a line of a log for a terminal: of its control sequences only colours stay, and they end
 * with the line.
 */
export function cleanLine(line: string, colours: boolean): string {
  let coloured = false;
  const text = line
    .replace(commandStrings, '')
    .replace(sequences, (sequence: string, parameters?: string, between?: string, end?: string) => {
      if (!colours || end !== 'm' || between || !/^[0-9;:]*$/.test(parameters ?? '')) return '';
      coloured = true;
      return sequence.startsWith('\x1b') ? sequence : `\x1b[${sequence.slice(1)}`;
    })
    .replace(lineEnds, ' ')
    .replace(controls, '')
    .replace(hiddenDirections, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return coloured ? `${text}\x1b[0m` : text;
}

/** Cleans text of others within a message: one line without control sequences. */
export function cleanText(text: string): string {
  return text
    .split('\n')
    .map((line) => cleanLine(line.replace(whiteControls, ' '), false))
    .join('\n');
}

/**
 * Returns the columns of a text on a terminal: 0 for colours, 2 for each CJK character or emoji.
 */
export function textWidth(text: string): number {
  let width = 0;
  for (const character of stripVTControlCharacters(text)) {
    if (/^(\p{Mn}|\p{Me}|\u200d)$/u.test(character)) continue;
    width += /^[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}]$/u.test(
      character,
    )
      ? 2
      : 1;
  }
  return width;
}

const units = [
  ['d', 86_400],
  ['h', 3_600],
  ['m', 60],
  ['s', 1],
] as const;

/** Returns a duration in up to two units, e.g. `3m 12s`, `2d 4h`, `0.4s`. */
export function formatDuration(ms: number): string {
  if (ms < 950) return `${(Math.max(0, ms) / 1000).toFixed(1)}s`;
  let rest = Math.round(ms / 1000);
  const parts: string[] = [];
  for (const [unit, seconds] of units) {
    const count = Math.floor(rest / seconds);
    rest -= count * seconds;
    if (count > 0) parts.push(`${count}${unit}`);
    else if (parts.length > 0) break;
  }
  return parts.slice(0, 2).join(' ');
}

/** Returns the age of a time in its largest unit, e.g. `3m`. */
export function formatAge(time: string, now: number): string {
  const seconds = Math.max(0, Math.floor((now - Date.parse(time)) / 1000));
  const [unit, size] = units.find(([, length]) => seconds >= length) ?? (['s', 1] as const);
  return `${Math.floor(seconds / size)}${unit}`;
}

/** Returns the seconds of `90`, `90s`, `2h`, `1h30m` or `1d`; null for other texts. */
export function parseDuration(text: string): number | null {
  if (/^\d+$/.test(text)) return Number(text);
  if (!/^(\d+(\.\d+)?[dhms])+$/.test(text)) return null;
  let seconds = 0;
  for (const [, count, unit] of text.matchAll(/([\d.]+)([dhms])/g)) {
    seconds += Number(count) * (units.find(([name]) => name === unit)?.[1] ?? 0);
  }
  return Math.round(seconds);
}

/** Returns the value of a metric with four digits; `NaN` and infinities come as text. */
export function formatNumber(value: number | string | null): string {
  if (value === null) return '';
  if (typeof value === 'string') return value;
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e6 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}
