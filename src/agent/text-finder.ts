// Finds many texts at once (Wu and Manber): a window as long as the shortest text moves over the line; a table says by its
// last two characters how far it may jump. Its time hardly grows with the number of texts, a regular expression's does.
import { minSecretLength } from '../protocol/secret.ts';
import type { Range } from './ranges.ts';

const tableSize = 65_536;

export class TextFinder {
  /** Length of the longest text; 0 when there is none. */
  readonly longest: number;
  readonly #jumps = new Uint8Array(tableSize).fill(minSecretLength - 1);
  /** What to look for by its first characters, longest first. */
  readonly #byHead = new Map<string, string[]>();

  /** Each text has `minSecretLength` characters at least. */
  constructor(texts: Iterable<string>) {
    const sorted = [...new Set(texts)].sort((a, b) => b.length - a.length);
    this.longest = sorted[0]?.length ?? 0;
    for (const text of sorted) {
      const head = text.slice(0, minSecretLength);
      const others = this.#byHead.get(head);
      if (others) others.push(text);
      else this.#byHead.set(head, [text]);
      for (let at = 1; at < minSecretLength; at++) {
        const pair = pairOf(head, at);
        this.#jumps[pair] = Math.min(this.#jumps[pair] ?? 0, minSecretLength - 1 - at);
      }
    }
  }

  /** Where one of the texts stands. When `text` goes on, also where one of them may begin at its end. */
  find(text: string, goesOn = false): Range[] {
    const ranges: Range[] = [];
    if (this.longest === 0) return ranges;
    for (let at = minSecretLength - 1; at < text.length;) {
      const jump = this.#jumps[pairOf(text, at)] ?? 0;
      const from = at - minSecretLength + 1;
      at += jump || 1;
      const to = jump > 0 ? 0 : this.#endOf(text, from, goesOn);
      if (to > 0) ranges.push({ from, to });
    }
    return ranges;
  }

  #endOf(text: string, from: number, goesOn: boolean): number {
    const texts = this.#byHead.get(text.slice(from, from + minSecretLength));
    const found = texts?.find((wanted) => text.startsWith(wanted, from));
    if (found) return from + found.length;
    const rest = goesOn && texts && text.length - from < this.longest ? text.slice(from) : null;
    return rest !== null && texts?.some((wanted) => wanted.startsWith(rest)) ? text.length : 0;
  }
}

/** A number for the two characters that end at this place. */
function pairOf(text: string, at: number): number {
  return ((text.charCodeAt(at - 1) << 8) ^ text.charCodeAt(at)) & (tableSize - 1);
}
