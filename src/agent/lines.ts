// Bytes of a pipe → lines. Split at `\n`; a lone `\r` rewrites the current line, as progress bars do, and such a line is
// passed on once a second at most, its final state always. Secrets are replaced here, so that no text leaves that holds
// one; nothing else is removed: what a job wrote is kept as it is, and made harmless where it is shown.
import { StringDecoder } from 'node:string_decoder';
import { maxLineBytes } from '../protocol/record.ts';
import { Redactor } from './redact.ts';

export type OnLine = (text: string, truncated: boolean) => void;

const maxCharacterBytes = 3; // of UTF-8, for each unit of UTF-16
const rewriteEveryMs = 1_000;
const encoder = new TextEncoder();
const noSecrets = new Redactor([]);

export class LineSplitter {
  readonly #onLine: OnLine;
  readonly #maxBytes: number;
  readonly #redactor: Redactor;
  readonly #now: () => number;
  readonly #decoder = new StringDecoder('utf8'); // invalid bytes become U+FFFD, characters may span chunks
  /** As it was written, and a little longer than what is passed on of it: a secret may cross the cut. */
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

  /** The pipe ended: what stands without a `\n` is a line too. */
  end(): void {
    this.#take(this.#decoder.end());
    if (this.#line !== '') this.#finish();
  }

  #take(text: string): void {
    let from = 0;
    const ends = /[\r\n]/g;
    for (let found = ends.exec(text); found; found = ends.exec(text)) {
      this.#append(text.slice(from, found.index));
      from = found.index + 1;
      if (found[0] === '\r') this.#sawReturn = true;
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

  /** The line starts again: its last state is passed on when it is due. */
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
    // A final state that was passed on already is not repeated; an ordinary empty line is a line.
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

/** The longest start of the text of at most so many bytes of UTF-8, without half a character at its end. */
export function cutText(text: string, maxBytes: number): string {
  if (text.length * 3 <= maxBytes) return text;
  return text.slice(0, encoder.encodeInto(text, new Uint8Array(maxBytes)).read);
}
