// A secret that a job prints leaves its machine in no encoding, wherever the borders of chunks, writes and lines fall.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { formsOf } from '../src/agent/encodings.ts';
import { LineSplitter } from '../src/agent/lines.ts';
import { defaultRedactVars, redacted, Redactor, redactVarsName, secretValues } from '../src/agent/redact.ts';

const R = redacted;
const secret = 'pä55/w+rd "x"=\\y&';
const redact = (text: string, ...values: string[]) => new Redactor(values).redact(text);

/** What a splitter passes on of these chunks. */
function lines(chunks: readonly Buffer[], values: string[], maxBytes?: number): string[] {
  const passed: string[] = [];
  const splitter = new LineSplitter((text) => void passed.push(text), { maxBytes, redactor: new Redactor(values) });
  for (const chunk of chunks) splitter.write(chunk);
  splitter.end();
  return passed;
}

/** How programs print it: named, so that a failure says which. */
const encodings: Record<string, (text: string) => string> = {
  plain: (text) => text,
  base64: (text) => Buffer.from(text).toString('base64'),
  base64url: (text) => Buffer.from(text).toString('base64url'),
  hex: (text) => Buffer.from(text).toString('hex'),
  'hex, upper case': (text) => Buffer.from(text).toString('hex').toUpperCase(),
  encodeURIComponent: encodeURIComponent,
  'percent, lower case': (text) => encodeURIComponent(text).replace(/%../g, (code) => code.toLowerCase()),
  form: (text) => new URLSearchParams({ text }).toString().slice('text='.length),
  'every byte in percent': (text) => Buffer.from(text).toString('hex').toUpperCase().replace(/../g, '%$&'),
  JSON: (text) => JSON.stringify(text).slice(1, -1),
  'JSON, slashes escaped': (text) => JSON.stringify(text).slice(1, -1).replaceAll('/', '\\/'),
  'JSON within JSON': (text) => JSON.stringify(JSON.stringify(text)).slice(3, -3),
  'JSON, ASCII only': (text) =>
    JSON.stringify(text)
      .slice(1, -1)
      .replace(/[^\0-~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`),
};

suite('a secret is replaced', () => {
  for (const [name, encode] of Object.entries(encodings)) {
    test(`in ${name}`, () => assert.equal(redact(`<${encode(secret)}> and`, secret), `<${R}> and`));
  }

  test('as Python prints it', () => {
    assert.equal(redact(`{'x': 'pä55/w+rd "x"=\\\\y&'}`, secret), `{'x': '${R}'}`);
    assert.equal(redact(`b'p\\xc3\\xa455/w+rd "x"=\\\\y&'`, secret), `b'${R}'`);
  });

  test('in base64 of a longer text, at each of the three alignments, but for the characters that it shares', () => {
    for (const user of ['u', 'us', 'use']) {
      for (const encoding of ['base64', 'base64url'] as const) {
        const said = redact(
          Buffer.from(`${user}:hunter2-hunter2-hunter2!`).toString(encoding),
          'hunter2-hunter2-hunter2!',
        );
        assert.match(said, /^[\w+/-]{2,6}\[REDACTED\][\w+/-]?=*$/);
      }
    }
  });

  test('in base64 and hex that are wrapped, as `base64` and `xxd -p` do', () => {
    const long = Array.from({ length: 12 }, (_, n) => `part-${n}-of-a-long-secret`).join('.');
    for (const [encoded, columns] of [
      [Buffer.from(long).toString('base64'), 76],
      [Buffer.from(long).toString('hex'), 60],
    ] as const) {
      const wrapped = encoded.match(new RegExp(`.{1,${columns}}`, 'g')) ?? [];
      assert.ok(wrapped.length > 3);
      for (const line of wrapped) assert.match(redact(line, long), /^\[REDACTED\]([\w+/]?=*)$/);
    }
  });

  test('line by line where it has several, and whole where they are escaped', () => {
    const key = '-----BEGIN KEY-----\nMIIEvQIBADANBg\nab\nc2VjcmV0IQ==\n-----END KEY-----\n';
    const said = lines([Buffer.from(`key:\r\n${key}`)], [key]);
    assert.deepEqual(said, ['key:', R, R, 'ab', R, R]); // a line shorter than 6 characters is no secret
    assert.equal(redact(JSON.stringify({ key }), key), `{"key":"${R}"}`);
  });

  test('that stands beside another, or overlaps it', () => {
    assert.equal(redact('abcdefghijklmn', 'abcdefgh', 'ghijklmn'), R);
    assert.equal(redact('abcdefghijklmn', 'abcdefg', 'hijklmn'), R + R);
    assert.equal(redact('abcdefghijklmn', 'abcdefgh', 'abcdefghijkl'), `${R}mn`);
  });

  test('when it crosses the place where a long line is cut, and is not half kept', () => {
    for (let before = 85; before <= 105; before++) {
      const [line = ''] = lines([Buffer.from(`${'.'.repeat(before)}topsecret${'.'.repeat(300)}`)], ['topsecret'], 100);
      assert.ok(!line.includes('t'), line);
      assert.ok(line.startsWith('.'.repeat(Math.min(before, 100))));
    }
  });
});

suite('no secret is', () => {
  test('a value shorter than six characters', () =>
    assert.equal(redact('12345 aGVsbG8=', '12345', 'hello'), '12345 aGVsbG8='));
  test('looked for where there is none', () => assert.equal(redact('text'), 'text'));
});

test('values are those of the job that are secrets, and of the machine’s variables that look like one', () => {
  const of = (host: Record<string, string>) =>
    secretValues({ env: { A: 'secret-a', B: 'plain-b' }, secretEnv: ['A', 'GONE'] }, host);
  assert.deepEqual(of({ PATH: '/bin', DB_PASSWORD: 'one', my_token: 'two', TOKENS: 'no' }), ['secret-a', 'one', 'two']);
  assert.deepEqual(of({ DB_PASSWORD: 'one', MY_PIN: 'two', [redactVarsName]: 'MY_*, X' }), ['secret-a', 'two']);
  assert.equal(defaultRedactVars.split(',').length, 7); // Buildkite's list
});

const values = fc.array(fc.string({ minLength: 6, maxLength: 40, unit: 'grapheme' }), { minLength: 1, maxLength: 4 });
const shown = Object.values(encodings);

test('whatever the chunks, the encodings and the text around them, no form of a secret survives', () => {
  const piece = fc.record({ text: fc.string({ maxLength: 30, unit: 'grapheme' }), which: fc.nat(), how: fc.nat() });
  const cuts = fc.array(fc.nat(2_000), { maxLength: 8 });
  fc.assert(
    fc.property(values, fc.array(piece, { maxLength: 8 }), cuts, (secrets, pieces, places) => {
      const printed = pieces
        .map(
          ({ text, which, how }) => text + (shown[how % shown.length]?.(secrets[which % secrets.length] ?? '') ?? ''),
        )
        .join('');
      const bytes = Buffer.from(`${printed}\n`);
      const borders = [0, ...places.map((place) => place % bytes.length).sort((a, b) => a - b), bytes.length];
      const chunks = borders.slice(1).map((to, index) => bytes.subarray(borders[index], to));
      const forms = secrets.flatMap((value) => [...formsOf(value)]).filter((form) => !redacted.includes(form));
      for (const line of lines(chunks, secrets)) {
        const rest = line.split(redacted);
        for (const form of forms) assert.ok(!rest.some((text) => text.includes(form)), `${form} in ${line}`);
      }
    }),
    { numRuns: 400 },
  );
});

test('other text is unchanged', () => {
  const words = fc.array(fc.stringMatching(/^[a-z ]{0,20}$/), { minLength: 1, maxLength: 8 });
  const strange = fc.array(fc.stringMatching(/^[A-Z0-9]{6,40}$/), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(words, strange, fc.nat(), (texts, secrets, how) => {
      const encode = shown[how % shown.length] ?? String;
      const printed = texts.map((text, index) => `<${text}>${encode(secrets[index % secrets.length] ?? '')}`).join('');
      assert.equal(redact(printed, ...secrets), texts.map((text) => `<${text}>${R}`).join(''));
      assert.equal(redact(texts.join('\n'), ...secrets), texts.join('\n'));
    }),
    { numRuns: 300 },
  );
});

test('twenty secrets cost a line of a hundred characters less than ten microseconds', () => {
  const redactor = new Redactor(
    Array.from({ length: 20 }, (_, n) => `hf_${Buffer.from(`${n} secret ${n * 7919}`).toString('base64')}`),
  );
  const line = 'Epoch 3/20: 100%|##########| 1563/1563 [02:11<00:00, 11.87it/s, loss=0.2231, lr=3e-05] step 4689';
  const startedAt = performance.now();
  for (let n = 0; n < 40_000; n++) redactor.redact(line);
  const each = ((performance.now() - startedAt) * 1000) / 40_000;
  assert.ok(each < 10, `${each} µs`);
});
