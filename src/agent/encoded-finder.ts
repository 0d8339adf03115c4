// Finds secrets that were encoded as base64, base32 or hexadecimal digits, whole or in pieces. A
// text is decoded while it is scanned, from each place where a byte may begin. Six consecutive
// bytes of a secret are a match, wherever a tool broke its lines.
import { minSecretLength } from '../protocol/secret.ts';
import type { Range } from './ranges.ts';

/** Length of a match in bytes: fewer consecutive bytes of a secret occur in other texts too. */
const fragmentBytes = minSecretLength;
const fragmentBits = 8 * fragmentBytes;
const tableSize = 65_536;

/** `border` ends an encoded text; `filler` stands inside of one and is ignored. */
const [border, filler] = [-1, -2];

/**
 * An encoding. `values` gives the `bits` bits of each character, by its code. Bytes may begin at
 * each multiple of `step` bits.
 */
type Alphabet = { bits: number; step: number; values: Int8Array };

function alphabet(bits: number, step: number, digits: readonly string[], fillers = ''): Alphabet {
  const values = new Int8Array(128).fill(border);
  for (const character of fillers) values[character.charCodeAt(0)] = filler;
  for (const text of digits) {
    for (const [value, character] of [...text].entries()) values[character.charCodeAt(0)] = value;
  }
  return { bits, step, values };
}

const letters = 'abcdefghijklmnopqrstuvwxyz';
const base64 = alphabet(
  6,
  2,
  ['+/', '-_'].map((last) => `${letters.toUpperCase()}${letters}0123456789${last}`),
);
const base32 = alphabet(5, 1, [`${letters}234567`, `${letters.toUpperCase()}234567`]);
/**
 * Fillers: `xxd` writes blanks between bytes, `openssl` colons; the others are of `\x68`, `%68`,
 * `&#x68;`, `68-75` and lists of them.
 */
const hex = alphabet(4, 4, ['0123456789abcdef', '0123456789ABCDEF'], ' \t:,;-_.\'"\\%&#xX');
const plain: Alphabet = { bits: 8, step: 8, values: Int8Array.from({ length: 128 }, (_, code) => code) };

export class EncodedFinder {
  /** The fragments of six bytes, each as one number of 48 bits. */
  readonly #fragments = new Set<number>();
  /**
   * 1 for the last two bytes of each fragment. This small table rules out nearly all places of a
   * text.
   */
  readonly #ends = new Uint8Array(tableSize);

  constructor(texts: Iterable<string>) {
    for (const text of texts) {
      const secret = withoutScheme(text);
      this.#add(Buffer.from(secret));
      // finds secrets that were encoded twice
      for (const encoded of base64Forms(secret)) this.#add(Buffer.from(encoded));
    }
  }

  find(text: string): Range[] {
    const ranges: Range[] = [];
    if (this.#fragments.size === 0) return ranges;
    this.#scan(text, base64, ranges);
    this.#scan(text, base32, ranges);
    for (const range of ranges) range.to = endOfPadding(text, range.to);
    const before = ranges.length;
    this.#scan(withoutPrefixes(text), hex, ranges);
    // Dumps show the characters beside the digits, and a line may hold only a piece of them.
    if (ranges.length > before) this.#scan(text, plain, ranges);
    return ranges;
  }

  #add(bytes: Buffer): void {
    let word = -1; // index of the last byte that is no blank
    for (const [index, byte] of bytes.entries()) {
      if (byte > 0x20) word = index;
      const from = index - fragmentBytes + 1;
      if (from < 0 || word < from) continue; // a fragment of blanks only would match anywhere
      this.#fragments.add(bytes.readUIntBE(from, fragmentBytes));
      this.#ends[bytes.readUInt16BE(index - 1)] = 1;
    }
  }

  /**
   * Scans a text once. For each bit position at which a byte may begin it keeps the last six bytes,
   * in two halves of 24 bits.
   */
  #scan(text: string, { bits, step, values }: Alphabet, ranges: Range[]): void {
    const [high, low] = [new Int32Array(8), new Int32Array(8)];
    // indexes of the last characters: 48 bits take at most ten in base32, twelve in hex
    const places = new Int32Array(16);
    let [count, length, pending] = [0, 0, 0];
    for (let index = 0; index < text.length; index++) {
      const value = values[text.charCodeAt(index)] ?? border;
      if (value < 0) {
        if (value === border) count = length = 0;
        continue;
      }
      places[count++ & 15] = index;
      pending = ((pending << bits) | value) & 0xffff;
      const before = length;
      length += bits;
      for (let end = before - (before % step) + step; end <= length; end += step) {
        const phase = end & 7;
        const [first = 0, last = 0] = [high[phase], low[phase]];
        const rest = ((last << 8) | ((pending >>> (length - end)) & 0xff)) & 0xffffff;
        high[phase] = ((first << 8) | (last >>> 16)) & 0xffffff;
        low[phase] = rest;
        if (end < fragmentBits || this.#ends[rest & 0xffff] === 0) continue;
        if (!this.#fragments.has((high[phase] ?? 0) * 0x1000000 + rest)) continue;
        ranges.push({ from: places[Math.floor((end - fragmentBits) / bits) & 15] ?? 0, to: index + 1 });
      }
    }
  }
}

/**
 * Returns the base64 forms of a text in both alphabets: alone, and inside of a longer text. There
 * it may start at each of the three bytes of a group, and the characters that it shares with its
 * neighbours are left out.
 */
function base64Forms(text: string): string[] {
  const bytes = Buffer.from(text);
  const inner = [0, 1, 2].map((before) => {
    const encoded = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64');
    return encoded.slice([0, 2, 3][before], Math.floor((8 * (before + bytes.length)) / 6));
  });
  const forms = [bytes.toString('base64'), ...inner];
  return [...forms, ...forms.map((form) => form.replaceAll('+', '-').replaceAll('/', '_'))];
}

/** Removes the scheme of a URL: the same text starts many harmless URLs. */
function withoutScheme(text: string): string {
  const rest = text.replace(/^[a-z][a-z0-9+.-]{0,30}:\/\//i, '');
  return rest.length < minSecretLength ? text : rest;
}

/**
 * Blanks out the prefixes of `0x68` and `\u0068`, whose zeros are no digits of the byte. Keeps the
 * length.
 */
function withoutPrefixes(text: string): string {
  return text.replace(/0x|\\u00/gi, (prefix) => ' '.repeat(prefix.length));
}

function endOfPadding(text: string, from: number): number {
  let to = from;
  while (to < from + 6 && text[to] === '=') to++;
  return to;
}
