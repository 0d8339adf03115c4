// Lists the texts in which a secret may appear in an output: as it is, and as programs escape it.
// Encodings such as base64 are found by decoding, in `encoded-finder.ts`.
import { linesOf, minSecretLength } from '../protocol/secret.ts';
import { visible } from './invisible.ts';

/** Returns all texts to search for one value: its parts and their lines, escaped in every way. */
export function formsOf(value: string): Set<string> {
  const forms = new Set<string>();
  for (const part of textsOf(value).flatMap((text) => [
    text,
    text.trim(),
    ...text.split(/\r\n|\n|\r/),
    ...linesOf(text),
  ])) {
    if (part.length < minSecretLength) continue;
    for (const form of [
      part,
      part.toUpperCase(),
      part.toLowerCase(),
      ...lastLines(part),
      ...urlForms(part),
      ...escapedForms(part),
    ]) {
      // An output line has no line feeds, so a form with one can never be found.
      const { text } = visible(form);
      if (text.length >= minSecretLength && !text.includes('\n')) forms.add(text);
    }
  }
  return forms;
}

/** Columns after which `base64`, PEM and `xxd -p` break lines. */
const wrapColumns = [76, 64, 60];

/**
 * The last line that `base64` and `xxd -p` print of a value: it may be too short to be found by
 * decoding.
 */
function lastLines(part: string): string[] {
  const bytes = Buffer.from(part);
  const digits = bytes.toString('hex');
  return [bytes.toString('base64'), digits, digits.toUpperCase()].flatMap((text) =>
    wrapColumns.filter((columns) => text.length > columns).map((columns) => text.slice(-(text.length % columns))),
  );
}

/**
 * Returns the value, the strings in it when it is JSON, and passwords of URLs: a program may print
 * each alone.
 */
export function textsOf(value: string): string[] {
  const texts = new Set([value]);
  for (const text of [value, ...linesOf(value)]) for (const inner of textsInJson(text)) texts.add(inner);
  for (const text of [...texts]) for (const password of passwordsOf(text)) texts.add(password);
  return [...texts].filter((text) => text.length >= minSecretLength);
}

function textsInJson(text: string): string[] {
  if (!/^\s*["[{]/.test(text)) return [];
  const texts: string[] = [];
  try {
    const pending: unknown[] = [JSON.parse(text)];
    while (pending.length > 0) {
      const item = pending.pop();
      if (typeof item === 'string') texts.push(item);
      else if (typeof item === 'object' && item !== null) for (const inner of Object.values(item)) pending.push(inner);
    }
  } catch {
    return []; // the text is no JSON
  }
  return texts;
}

/**
 * Returns the password of `scheme://user:password@host`, as it stands and decoded. Without a
 * password, the user is the secret.
 */
function passwordsOf(text: string): string[] {
  const [, authority = ''] = /^\s*[a-z][a-z0-9+.-]*:\/\/([^\s]+)@/i.exec(text) ?? [];
  if (authority === '') return [];
  const colon = authority.indexOf(':');
  // Up to the last @, since a password may hold one; up to the first too, since a path may.
  const longest = authority.slice(colon + 1);
  const passwords = [longest, longest.split('@')[0] ?? ''];
  return [...passwords, ...passwords.map(decodePercent)];
}

function decodePercent(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Characters that each way of URL encoding leaves unchanged: JavaScript's three, Python's two, and
 * one that leaves none.
 */
const unescaped = [/[\w.!~*'()-]/, /[\w.!~*'();,/?:@&=+$#-]/, /[\w.*-]/, /[\w.~/-]/, /[\w.~-]/, /[^\s\S]/];

/** For each of these ways, the text of each byte. */
const urlTables = unescaped.flatMap((kept) => {
  const table = Array.from({ length: 256 }, (_, byte) => {
    const character = String.fromCharCode(byte);
    return byte < 128 && kept.test(character) ? character : `%${byte.toString(16).padStart(2, '0').toUpperCase()}`;
  });
  const form = table.map((text) => (text === '%20' ? '+' : text));
  const lower = (upper: string[]) => upper.map((text) => (text.length === 3 ? text.toLowerCase() : text));
  return [table, form, lower(table), lower(form)];
});

function urlForms(value: string): string[] {
  const bytes = [...Buffer.from(value)];
  return urlTables.map((table) => bytes.map((byte) => table[byte]).join(''));
}

/**
 * The value as escaped by JSON (plain, inside of JSON, with `\/`, ASCII only, safe for HTML), by
 * literals of Python and JavaScript, and by shell quotes.
 */
function escapedForms(value: string): string[] {
  const json = JSON.stringify(value).slice(1, -1);
  const ascii = escapeEach(json, /[^\0-~]/g, 'u');
  const literal = escapeEach(
    value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('\t', '\\t'),
    /\r/g,
    'x',
  );
  const bytes = escapeEach(Buffer.from(literal).toString('latin1'), /[^\0-~]/g, 'x');
  const plain = [
    json,
    json.replaceAll('/', '\\/'),
    ascii,
    ascii.toUpperCase() === ascii
      ? ascii
      : ascii.replace(/\\u[0-9a-f]{4}/g, (code) => `\\u${code.slice(2).toUpperCase()}`),
    escapeEach(ascii, /[<>&]/g, 'u'),
    ...[literal, bytes, escapeEach(literal, /[^\0-~]/g, 'x')].flatMap((text) => [text, text.replaceAll("'", "\\'")]),
    value.replaceAll("'", `'\\''`),
    value.replaceAll("'", `'"'"'`),
  ];
  return [...plain, JSON.stringify(json).slice(1, -1)];
}

function escapeEach(text: string, pattern: RegExp, kind: 'u' | 'x'): string {
  return text.replace(pattern, (character) => {
    const code = character.charCodeAt(0).toString(16);
    return kind === 'x' && code.length <= 2 ? `\\x${code.padStart(2, '0')}` : `\\u${code.padStart(4, '0')}`;
  });
}
