// The texts in which a secret value may appear in an output: as it is, and in the encodings that programs print. Each is
// whole where it stands alone; in base64 also what is left of it inside of a longer encoded text.

/** A shorter text is no secret that could be told from others. */
export const minSecretLength = 6;

/** Columns after which `base64`, PEM and `xxd -p` break a line. */
const wrapColumns = [76, 64, 60];

/** Everything to look for, for one value: the value and each of its lines in every encoding. */
export function formsOf(value: string): Set<string> {
  const lines = value.split(/\r\n|\n|\r/);
  const parts = new Set([value, value.trim(), ...lines, ...lines.map((line) => line.trim())]);
  const forms = new Set<string>();
  for (const part of parts) {
    if (part.length < minSecretLength) continue;
    // A line never holds a line feed: of a value with several, only what has them encoded can be found whole.
    if (!part.includes('\n')) forms.add(part);
    for (const form of [...base64Forms(part), ...hexForms(part), ...urlForms(part), ...escapedForms(part)]) {
      if (form.length >= minSecretLength && !form.includes('\n')) forms.add(form);
    }
  }
  return forms;
}

/**
 * Inside of a longer encoded text a value starts at one of three places of a group. What is encoded together with its
 * neighbours there, up to two characters at its ends, is not known and tells next to nothing.
 */
function base64Forms(value: string): string[] {
  const bytes = Buffer.from(value);
  const inner = [0, 1, 2].map((before) => {
    const encoded = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64');
    return encoded.slice([0, 2, 3][before], Math.floor((8 * (before + bytes.length)) / 6));
  });
  const whole = bytes.toString('base64');
  const plain = [whole, whole.replace(/=+$/, ''), ...inner, ...wrapped(whole), ...wrapped(inner[0] ?? '')];
  return [...plain, ...plain.map((text) => text.replaceAll('+', '-').replaceAll('/', '_'))];
}

function hexForms(value: string): string[] {
  const lower = Buffer.from(value).toString('hex');
  return [lower, ...wrapped(lower)].flatMap((text) => [text, text.toUpperCase()]);
}

/** The pieces of a long encoded text that stand on lines of their own. */
function wrapped(text: string): string[] {
  return wrapColumns
    .filter((columns) => text.length > columns)
    .flatMap((columns) => text.match(new RegExp(`.{1,${columns}}`, 'g')) ?? []);
}

/** What each way to encode leaves as it is: JavaScript's three, Python's two, and one that leaves nothing. */
const unescaped = [/[\w.!~*'()-]/, /[\w.!~*'();,/?:@&=+$#-]/, /[\w.*-]/, /[\w.~/-]/, /[\w.~-]/, /[^\s\S]/];

function urlForms(value: string): string[] {
  const bytes = [...Buffer.from(value)];
  const forms = unescaped.map((kept) =>
    bytes.map((byte) => {
      const character = String.fromCharCode(byte);
      return byte < 128 && kept.test(character) ? character : `%${byte.toString(16).padStart(2, '0').toUpperCase()}`;
    }),
  );
  const upper = forms.flatMap((form) => [form, form.map((piece) => (piece === '%20' ? '+' : piece))]);
  return upper.flatMap((form) => [
    form.join(''),
    form.map((piece) => (piece.length === 3 ? piece.toLowerCase() : piece)).join(''),
  ]);
}

/** JSON (also within JSON, with `\/`, ASCII only, or safe for HTML), Python's and JavaScript's literals, a shell's quotes. */
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

function escapeEach(text: string, what: RegExp, kind: 'u' | 'x'): string {
  return text.replace(what, (character) => {
    const code = character.charCodeAt(0).toString(16);
    return kind === 'x' && code.length <= 2 ? `\\x${code.padStart(2, '0')}` : `\\u${code.padStart(4, '0')}`;
  });
}
