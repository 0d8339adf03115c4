// Bytes of a pipe → lines. Split at `\n`; a lone `\r` rewrites the current line, as progress bars do, and such a line is
// passed on once a second at most, its final state always. Nothing else is removed: what a job wrote is kept as it is,
// and made harmless where it is shown.
import { StringDecoder } from 'node:string_decoder';
import { maxLineBytes } from '../protocol/record.ts';

export type OnLine = (text: string, truncated: boolean) => void;

const rewriteEveryMs = 1_000;
const encoder = new TextEncoder();

export class LineSplitter {
  readonly #onLine: OnLine;
  readonly #maxBytes: number;
  readonly #now: () => number;
  readonly #decoder = new StringDecoder('utf8'); // invalid bytes become U+FFFD, characters may span chunks
  #line = '';
  #truncated = false;
  #sawReturn = false;
  #passedOn = '';
  #passedAt = -Infinity;

  constructor(onLine: OnLine, options: { maxBytes?: number; now?: () => number } = {}) {
    this.#onLine = onLine;
    this.#maxBytes = options.maxBytes ?? maxLineBytes;
    this.#now = options.now ?? (() => performance.now());
  }

  write(chunk: Buffer): void {
    this.#take(this.#decoder.write(chunk));
  }

  /** The pipe ended: what stands without a `\n` is a line too. */
  end(): void {
    this.#take(this.#decoder.end());
    if (this.#line !== '' || this.#truncated) this.#finish();
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
    if (this.#truncated) return;
    const kept = cutText(text, this.#maxBytes - Buffer.byteLength(this.#line));
    this.#truncated = kept.length < text.length;
    this.#line += kept;
  }

  /** The line starts again: its last state is passed on when it is due. */
  #rewrite(): void {
    this.#sawReturn = false;
    if (this.#line !== '' && this.#now() - this.#passedAt >= rewriteEveryMs) {
      this.#passedAt = this.#now();
      this.#passedOn = this.#line;
      this.#onLine(this.#line, this.#truncated);
    }
    this.#line = '';
    this.#truncated = false;
  }

  #finish(): void {
    // A final state that was passed on already is not repeated; an ordinary empty line is a line.
    if (this.#line !== this.#passedOn || this.#passedOn === '') this.#onLine(this.#line, this.#truncated);
    this.#line = '';
    this.#truncated = false;
    this.#sawReturn = false;
    this.#passedOn = '';
  }
}

/** The longest start of the text of at most so many bytes of UTF-8, without half a character at its end. */
export function cutText(text: string, maxBytes: number): string {
  if (text.length * 3 <= maxBytes) return text;
  return text.slice(0, encoder.encodeInto(text, new Uint8Array(maxBytes)).read);
}
