// Finds many texts at once (algorithm of Wu and Manber). A window as long as the shortest text
// moves over the line; a table tells by the window's last two characters how far it may jump. Its
// time hardly grows with the number of texts, while that of a regular expression does.
import { minSecretLength } from '../protocol/secret.ts';
import type { Range } from './ranges.ts';

const tableSize = 65_536;

export class TextFinder {
  /** Length of the longest text in characters; 0 without texts. */
  readonly longest: number;
  readonly #jumps = new Uint8Array(tableSize).fill(minSecretLength - 1);
  /** Texts by their first characters, longest first. */
  readonly #byHead = new Map<string, string[]>();

  /** Each text must have at least `minSecretLength` characters. */
  constructor(texts: Iterable<string>) {
    const sorted = [...new Set(texts)].sort((a, b) => b.length - a.length);
    this.longest = sorted[0]?.length ?? 0;
    for (const text of sorted) {
      const head = text.slice(0, minSecretLength);
      const others = this.#byHead.get(head);
      if (others) others.push(text);
      else this.#byHead.set(head, [text]);
      for (let index = 1; index < minSecretLength; index++) {
        const pair = pairOf(head, index);
        this.#jumps[pair] = Math.min(this.#jumps[pair] ?? 0, minSecretLength - 1 - index);
      }
    }
  }

  /**
   * Returns the ranges where one of the texts stands. With `goesOn` (the line is longer than
   * `text`), also a range at the end where one of them may begin.
   */
  find(text: string, goesOn = false): Range[] {
    const ranges: Range[] = [];
    if (this.longest === 0) return ranges;
    for (let index = minSecretLength - 1; index < text.length;) {
      const jump = this.#jumps[pairOf(text, index)] ?? 0;
      const from = index - minSecretLength + 1;
      index += jump || 1;
      const to = jump > 0 ? 0 : this.#endOf(text, from, goesOn);
      if (to > 0) ranges.push({ from, to });
    }
    return ranges;
  }

  #endOf(text: string, from: number, goesOn: boolean): number {
    const texts = this.#byHead.get(text.slice(from, from + minSecretLength));
    const match = texts?.find((candidate) => text.startsWith(candidate, from));
    if (match) return from + match.length;
    const rest = goesOn && texts && text.length - from < this.longest ? text.slice(from) : null;
    return rest !== null && texts?.some((candidate) => candidate.startsWith(rest)) ? text.length : 0;
  }
}

/** Table index of the two characters that end at `index`. */
function pairOf(text: string, index: number): number {
  return ((text.charCodeAt(index - 1) << 8) ^ text.charCodeAt(index)) & (tableSize - 1);
}
