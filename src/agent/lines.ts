// Splits the bytes of a pipe into lines at `\n`. A lone `\r` rewrites the current line, as progress
// bars do; such a line is passed on at most once a second, and its final state always. Secrets are
// replaced here, so that no text with one leaves. Nothing else is changed: control characters stay,
// and are made harmless where the text is shown.
import { StringDecoder } from 'node:string_decoder';
import { maxLineBytes } from '../protocol/record.ts';
import { Redactor } from './redact.ts';

export type OnLine = (text: string, truncated: boolean) => void;

const maxCharacterBytes = 3; // bytes of UTF-8 for each unit of UTF-16
const rewriteEveryMs = 1_000;
const encoder = new TextEncoder();
const noSecrets = new Redactor([]);

export class LineSplitter {
  readonly #onLine: OnLine;
  readonly #maxBytes: number;
  readonly #redactor: Redactor;
  readonly #now: () => number;
  readonly #decoder = new StringDecoder('utf8'); // invalid bytes become U+FFFD, characters may span chunks
  /**
   * The current line as it was written. It is kept a little beyond the limit, since a secret may
   * cross the cut.
   */
  #line = '';
  #full = false;
  #sawReturn = false;
  #passedOn = '';
  #passedAt = -Infinity;

  constructor(onLine: OnLine, options: { maxBytes?: number; redactor?: Redactor; now?: () => number } = {}) {
    this.#onLine = onLine;
    this.#maxBytes = options.maxBytes ?? maxLineBytes;
    this.#redactor = options.redactor ?? noSecrets;
    this.#now = options.now ?? (() => performance.now());
  }

  write(chunk: Buffer): void {
    this.#take(this.#decoder.write(chunk));
  }

  /** The pipe has ended: an unfinished line is passed on too. */
  end(): void {
    this.#take(this.#decoder.end());
    if (this.#line !== '') this.#finish();
  }

  #take(text: string): void {
    let from = 0;
    const ends = /[\r\n]/g;
    for (let match = ends.exec(text); match; match = ends.exec(text)) {
      this.#append(text.slice(from, match.index));
      from = match.index + 1;
      if (match[0] === '\r') this.#sawReturn = true;
      else this.#finish();
    }
    this.#append(text.slice(from));
  }

  #append(text: string): void {
    if (text === '') return;
    if (this.#sawReturn) this.#rewrite();
    if (this.#full) return;
    const limit = this.#maxBytes + maxCharacterBytes * (this.#redactor.lookahead + 1);
    const kept = cutText(text, limit - Buffer.byteLength(this.#line));
    this.#full = kept.length < text.length;
    this.#line += kept;
  }

  /**
   * A `\r` came: the state of the line is passed on when a second has passed since the last one.
   */
  #rewrite(): void {
    this.#sawReturn = false;
    if (this.#line !== '' && this.#now() - this.#passedAt >= rewriteEveryMs) {
      this.#passedAt = this.#now();
      this.#passedOn = this.#line;
      this.#pass();
    }
    this.#line = '';
    this.#full = false;
  }

  #finish(): void {
    // A final state that was just passed on is not repeated. An ordinary empty line is passed on.
    if (this.#line !== this.#passedOn || this.#passedOn === '') this.#pass();
    this.#line = '';
    this.#full = false;
    this.#sawReturn = false;
    this.#passedOn = '';
  }

  #pass(): void {
    const end = cutText(this.#line, this.#maxBytes).length;
    this.#onLine(this.#redactor.redact(this.#line, end), end < this.#line.length);
  }
}

/** Cuts a text to at most `maxBytes` of UTF-8, without half a character at its end. */
export function cutText(text: string, maxBytes: number): string {
  if (text.length * 3 <= maxBytes) return text;
  return text.slice(0, encoder.encodeInto(text, new Uint8Array(maxBytes)).read);
}
