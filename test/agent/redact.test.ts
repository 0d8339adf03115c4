// A secret that a job prints leaves its machine in no encoding, wherever the borders of chunks, writes and lines fall.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { LineSplitter } from '../../src/agent/lines.ts';
import { markerPrefix, parseMarker } from '../../src/agent/point.ts';
import { redacted } from '../../src/agent/ranges.ts';
import { defaultRedactVars, Redactor, redactVarsName, secretValues } from '../../src/agent/redact.ts';
import { metricName } from '../../src/protocol/record.ts';
import { base32Of, bytesApart, xxdOf } from '../support/encodings.ts';

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
  'base64 twice': (text) => Buffer.from(Buffer.from(text).toString('base64')).toString('base64'),
  'base64, in hex': (text) => Buffer.from(Buffer.from(text).toString('base64')).toString('hex'),
  base32: base32Of,
  'base32, lower case': (text) => base32Of(text).toLowerCase(),
  'hex with blanks': (text) => bytesApart(text, ' '),
  'hex with colons, upper case': (text) => bytesApart(text, ':').toUpperCase(),
  'hex with commas': (text) => bytesApart(text, ', '),
  'columns of xxd': (text) => bytesApart(text, '').replace(/.{4}/g, '$& ').trim(),
  'upper case': (text) => text.toUpperCase(),
  'lower case': (text) => text.toLowerCase(),
  'colour codes': (text) => [...text].join('\x1b[1;31m'),
  'a coloured half': (text) => `${text.slice(0, 3)}\x1b[0m${text.slice(3)}`,
  'a link': (text) => `${text.slice(0, 2)}\x1b]8;;https://x.example\x07${text.slice(2)}`,
  'signs without a width': (text) => [...text].join('\u200b\u2060'),
  'soft hyphens': (text) => [...text].join('\u00ad'),
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
        const output = redact(
          Buffer.from(`${user}:hunter2-hunter2-hunter2!`).toString(encoding),
          'hunter2-hunter2-hunter2!',
        );
        assert.match(output, /^[\w+/-]{2,6}\[REDACTED\][\w+/-]?=*$/);
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

  test('with `0x`, `\\x`, `&#x` or `\\u00` before each byte, but for the first sign', () => {
    const value = 'hunter2-hunter2!';
    for (const before of ['0x', '\\x', '&#x', '\\u00']) {
      for (const between of ['', ', ', '; ']) {
        const bytes = bytesApart(value, `${between}${before}`);
        assert.equal(redact(`<${before}${bytes}>`, value), `<${before}${R}>`, before);
      }
    }
    assert.equal(redact(`<0x${Buffer.from(value).toString('hex')}>`, value), `<0x${R}>`);
  });

  test('in dumps of `xxd` and `openssl`, in digits and characters, from wherever a line begins', () => {
    const value = 'hunter2-SECRET-hunter3-SECRET-hunter4';
    for (let before = 0; before < 16; before++) {
      const dump = xxdOf(`${'.'.repeat(before)}${value}`);
      const output = dump.map((line) => redact(line, value));
      for (const [index, line] of output.entries()) {
        const [digits = '', characters = ''] = line.replace(/^\w+: /, '').split('  ');
        const shown = Buffer.from(digits.replace(/\W|REDACTED/g, ''), 'hex').toString();
        for (const rest of [shown, characters.replace(R, '')]) {
          assert.ok(rest.replaceAll('.', '').length < 6, `${dump[index]} became ${line}`);
        }
      }
    }
    const colons = bytesApart(value, ':').match(/.{1,45}/g) ?? [];
    for (const line of colons) assert.match(redact(`    ${line}`, value), /^ {4}\[REDACTED\]:?$/);
  });

  test('in base64 of a longer text that breaks its lines anywhere, but for five characters at a border', () => {
    const value = 'hunter2-SECRET-hunter3';
    for (let before = 0; before < 80; before++) {
      const encoded = Buffer.from(`${'.'.repeat(before)}${value}${'.'.repeat(60)}`).toString('base64');
      for (const line of encoded.match(/.{1,76}/g) ?? []) {
        const decoded = [0, 1, 2, 3].map((skip) => Buffer.from(redact(line, value).slice(skip), 'base64').toString());
        for (const text of decoded) assert.ok(!/unter2|SECRET|unter3/.test(text), text);
      }
    }
  });

  test('in base64 twice of what `echo` prints, but for signs that it shares with the end of the line', () => {
    const once = Buffer.from(`${secret}\n`).toString('base64');
    assert.match(redact(Buffer.from(`${once}\n`).toString('base64'), secret), /^\[REDACTED\]\w{0,8}=*$/);
  });

  test('that is a text inside of JSON, at any depth, or the password of a URL', () => {
    const account = JSON.stringify({ type: 'x', key: { pem: ['-----BEGIN\nc2VjcmV0IQ', { id: 'deep-id-77' }] }, n: 1 });
    assert.equal(redact('a c2VjcmV0IQ b deep-id-77 x', account), `a ${R} b ${R} x`);
    assert.equal(redact(JSON.stringify({ pem: '-----BEGIN\nc2VjcmV0IQ' }), account), `{"pem":"${R}"}`);
    assert.equal(redact(Buffer.from('deep-id-77').toString('hex'), account), R);
    assert.equal(redact('"just-a-text" just-a-text', '"just-a-text"'), `${R} ${R}`);
    const url = 'postgres://app:p%40ss/w0rd@db.example:5432/train?x=a@b';
    assert.equal(redact(`pw p@ss/w0rd, p%40ss/w0rd; ${url}.`, url), `pw ${R}, ${R}; ${R}.`);
    assert.equal(redact('user tok-12345 on db.example', 'https://tok-12345@db.example/x'), `user ${R} on db.example`);
    assert.equal(redact('db.example:5432 app', url), 'db.example:5432 app');
    assert.equal(redact('pw p@ss/w0rd', JSON.stringify({ url })), `pw ${R}`);
  });

  test('line by line where it has several, and whole where they are escaped', () => {
    const key = '-----BEGIN KEY-----\nMIIEvQIBADANBg\nab\nc2VjcmV0IQ==\n-----END KEY-----\n';
    const output = lines([Buffer.from(`key:\r\n${key}`)], [key]);
    assert.deepEqual(output, ['key:', R, R, 'ab', R, R]); // a line shorter than 6 characters is no secret
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

test('a cut line keeps no start of a secret that goes on behind it in colours', () => {
  const value = 'topsecret-topsecret';
  for (let before = 80; before <= 100; before++) {
    const printed = `${'.'.repeat(before)}${[...value].join('\x1b[0m')}${'.'.repeat(300)}`;
    const [line = ''] = lines([Buffer.from(printed)], [value], 100);
    assert.match(line, /^\.+(?:\[REDACTED\]\.*)?$/);
  }
});

suite('a record is redacted', () => {
  const redactor = new Redactor(['topsecretvalue', 'other/secret-value', 'two words apart']);
  const time = 0;
  const named = (marker: unknown) => {
    const record = parseMarker(`${markerPrefix}${JSON.stringify(marker)}`, time);
    const clean = redactor.redactRecord(record ?? assert.fail());
    return clean.type === 'points' ? Object.keys(clean.values) : assert.fail();
  };

  test('in the name that nested keys spell, with what joins them and without', () => {
    assert.deepEqual(named({ m: { topsec: { retvalue: 1 } } }), ['m/REDACTED/REDACTED']);
    assert.deepEqual(named({ m: { top: { secret: { 'value-x': 1 } } } }), ['m/REDACTED/REDACTED/REDACTED-x']);
    assert.deepEqual(named({ other: { 'secret-value': 1 } }), ['REDACTED/REDACTED']);
    assert.deepEqual(named({ TOPSECRETVALUE: 1, loss: 2 }), ['REDACTED', 'loss']);
    assert.deepEqual(named({ 'train/loss': 2, m: { a: 1 } }), ['train/loss', 'm/a']);
    assert.ok(named({ [`${'topsecretvalue'.repeat(17)}`]: 1 }).every((name) => metricName.safeParse(name).success));
  });

  test('where title and text of an alert spell it together', () => {
    const redacted = (title: string, text: string) => {
      const clean = redactor.redactRecord({ type: 'alert', time, level: 'warn', title, text });
      return clean.type === 'alert' ? [clean.title, clean.text] : assert.fail();
    };
    assert.deepEqual(redacted('see topsec', 'retvalue now'), [`see ${R}`, `${R} now`]);
    assert.deepEqual(redacted('two words', 'apart'), [R, R]);
    assert.deepEqual(redacted('746f70736563', '72657476616c7565'), [R, R]);
    assert.deepEqual(redacted('topsec', 'and retvalue'), ['topsec', 'and retvalue']);
  });

  test('in the path of a checkpoint and the message of an end', () => {
    const path = redactor.redactRecord({ type: 'checkpoint', time, step: 1, path: '/out/topsecretvalue.pt' });
    assert.deepEqual(path, { type: 'checkpoint', time, step: 1, path: `/out/${R}.pt` });
  });
});

suite('no secret is', () => {
  test('a value shorter than six characters', () =>
    assert.equal(redact('12345 aGVsbG8=', '12345', 'hello', '{"a":"hello"}'), '12345 aGVsbG8='));
  test('looked for where there is none', () => assert.equal(redact('text'), 'text'));
});

test('values are those of the job that are secrets, and of the machine’s variables that look like one', () => {
  const valuesOf = (host: Record<string, string>) =>
    secretValues({ env: { A: 'secret-a', B: 'plain-b' }, secretEnv: ['A', 'GONE'] }, host);
  assert.deepEqual(valuesOf({ PATH: '/bin', DB_PASSWORD: 'one', my_token: 'two', TOKENS: 'no' }), [
    'secret-a',
    'one',
    'two',
  ]);
  assert.deepEqual(valuesOf({ DB_PASSWORD: 'one', MY_PIN: 'two', [redactVarsName]: 'MY_*, X' }), ['secret-a', 'two']);
  assert.equal(defaultRedactVars.split(',').length, 7); // Buildkite's list
});

const value = fc.string({ minLength: 6, maxLength: 40, unit: 'grapheme' }).filter((text) => text.trim().length >= 6);
const values = fc.array(value, { minLength: 1, maxLength: 4 });
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
      const forms = secrets
        .flatMap((value) => shown.map((encode) => encode(value)))
        .filter((form) => !redacted.includes(form));
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
  const strange = fc.array(fc.stringMatching(/^[A-Z0-9]{6,40}[0-9][A-Z0-9]$/), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(words, strange, fc.nat(), (texts, secrets, how) => {
      const encode = shown[how % shown.length] ?? String;
      const printed = texts.map((text, index) => `<${text}>${encode(secrets[index % secrets.length] ?? '')}`).join('');
      assert.equal(redact(printed, ...secrets), texts.map((text) => `<${text}>${R}`).join(''));
      assert.equal(redact(texts.join('\n'), ...secrets), texts.join('\n'));
    }),
    { numRuns: 400 },
  );
});

test('twenty secrets cost a line of a hundred characters some microseconds', (t) => {
  const redactor = new Redactor(
    Array.from({ length: 20 }, (_, n) => `hf_${Buffer.from(`${n} secret ${n * 7919}`).toString('base64')}`),
  );
  const line = 'Epoch 3/20: 100%|##########| 1563/1563 [02:11<00:00, 11.87it/s, loss=0.2231, lr=3e-05] step 4689';
  assert.equal(redactor.redact(line), line);
  const before = process.threadCpuUsage();
  for (let n = 0; n < 40_000; n++) redactor.redact(line);
  const { user, system } = process.threadCpuUsage(before);
  t.diagnostic(`${((user + system) / 40_000).toFixed(1)} µs of work a line`);
});
