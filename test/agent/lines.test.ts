// Bytes of a pipe become lines: whatever the chunks, however broken the bytes.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { cutText, LineSplitter } from '../../src/agent/lines.ts';
import { maxLineBytes } from '../../src/protocol/record.ts';

type Line = [text: string, truncated: boolean];

/** A splitter with a clock of its own, and what it passed on. */
function splitter(maxBytes?: number) {
  const lines: Line[] = [];
  const clock = { now: 0 };
  const target = new LineSplitter((text, truncated) => void lines.push([text, truncated]), {
    maxBytes,
    now: () => clock.now,
  });
  const write = (text: string | Buffer) => target.write(Buffer.from(text as string));
  return { lines, clock, write, end: () => target.end(), texts: () => lines.map(([text]) => text) };
}

function split(chunks: (string | Buffer)[], maxBytes?: number): Line[] {
  const one = splitter(maxBytes);
  for (const chunk of chunks) one.write(chunk);
  one.end();
  return one.lines;
}

const texts = (...chunks: (string | Buffer)[]) => split(chunks).map(([text]) => text);

suite('lines', () => {
  test('end at a line feed, with or without a carriage return before it', () => {
    assert.deepEqual(texts('a\nb\r\nc\n'), ['a', 'b', 'c']);
    assert.deepEqual(texts('a\r', '\nb\r', '\r', '\n'), ['a', 'b']);
  });

  test('may be empty', () => assert.deepEqual(texts('\n\r\n\na\n\n'), ['', '', '', 'a', '']));

  test('need no line feed at the end of the output', () => {
    assert.deepEqual(texts('a\nb'), ['a', 'b']);
    assert.deepEqual(texts('a\n'), ['a']);
    assert.deepEqual(texts(''), []);
    assert.deepEqual(texts('50%\r'), ['50%']);
  });

  test('are passed on as soon as they are complete', () => {
    const { lines, write } = splitter();
    write('one\ntw');
    assert.deepEqual(lines, [['one', false]]);
    write('o\n');
    assert.deepEqual(lines[1], ['two', false]);
  });

  test('hold characters that span chunks', () => {
    const bytes = Buffer.from('é€😀\n');
    assert.deepEqual(texts(...Array.from(bytes, (byte) => Buffer.from([byte]))), ['é€😀']);
  });

  test('show broken bytes as U+FFFD, and the next line is whole', () => {
    assert.deepEqual(texts(Buffer.from([0x61, 0xff, 0xfe, 0x62, 0x0a, 0x63, 0x0a])), ['a��b', 'c']);
    assert.deepEqual(texts(Buffer.from([0xf0, 0x9f, 0x98])), ['�']); // half a character at the very end
    assert.deepEqual(texts(Buffer.from([0xc0, 0x80, 0xed, 0xa0, 0x80, 0x0a])), ['�����']); // overlong, half a surrogate
  });

  test('keep NUL, colours and every other control character', () => {
    const text =
      'a\0b\u001b[31mred\u001b[0m\t\u0007\u001b]8;;https://evil.example\u0007link\u001b]52;c;QQ==\u0007\u2028';
    assert.deepEqual(texts(`${text}\n`), [text]);
  });
});

suite('a long line', () => {
  test('of 16 KiB is whole', () => {
    assert.deepEqual(split(['x'.repeat(maxLineBytes), '\n']), [['x'.repeat(maxLineBytes), false]]);
  });

  test('is cut at 16 KiB and says so, and the next one is unharmed', () => {
    const lines = split([`${'x'.repeat(maxLineBytes + 1)}\nnext\n`]);
    assert.deepEqual(lines, [
      ['x'.repeat(maxLineBytes), true],
      ['next', false],
    ]);
  });

  test('of 1 MB in any chunks is cut once', () => {
    const chunk = 'y'.repeat(65_536);
    const lines = split([...Array.from({ length: 16 }, () => chunk), '\nnext\n']);
    assert.deepEqual(lines, [
      ['y'.repeat(maxLineBytes), true],
      ['next', false],
    ]);
  });

  test('is cut before a character that does not fit, and what follows does not slip in', () => {
    for (const [character, bytes] of [
      ['é', 2],
      ['€', 3],
      ['😀', 4],
    ] as const) {
      for (let short = 1; short < bytes; short++) {
        const start = 'x'.repeat(maxLineBytes - short);
        assert.deepEqual(split([`${start}${character}z\n`]), [[start, true]]);
        assert.deepEqual(split([start, character, 'z', '\n']), [[start, true]]);
      }
      const exact = 'x'.repeat(maxLineBytes - bytes) + character;
      assert.deepEqual(split([exact, '\n']), [[exact, false]]);
    }
  });

  test('keeps a broken byte that is shown at its very end', () => {
    const text = `${'x'.repeat(maxLineBytes - 3)}�`;
    assert.deepEqual(split([`${text}z\n`]), [[text, true]]);
    assert.equal(cutText(`${text}z`, maxLineBytes), text);
  });
});

suite('a progress bar', () => {
  test('passes its states on once a second at most, and its final state always', () => {
    const { texts: passedOn, clock, write, end } = splitter();
    for (let percent = 0; percent <= 100; percent++) {
      clock.now = percent * 30; // 100 % after 3 s
      write(`\r${percent}%`);
    }
    write('\n');
    end();
    assert.deepEqual(passedOn(), ['0%', '34%', '68%', '100%']);
  });

  test('does not repeat a final state that was passed on already', () => {
    const { texts: passedOn, clock, write } = splitter();
    write('99%\r');
    clock.now = 5_000;
    write('100%\r');
    clock.now = 10_000;
    write('100%\r\nnext\n');
    assert.deepEqual(passedOn(), ['99%', '100%', 'next']);
  });

  test('that ends without a line feed shows its final state', () => {
    const { texts: passedOn, write, end } = splitter();
    write('1%\r2%\r3%');
    end();
    assert.deepEqual(passedOn(), ['1%', '3%']);
  });

  test('holds up no other line', () => {
    assert.deepEqual(texts('1%\r2%\r3%\nloss 4\n1%\r2%\n'), ['1%', '3%', 'loss 4', '2%']);
  });

  test('that is cut starts again whole', () => {
    const lines = split([`${'x'.repeat(maxLineBytes + 9)}\rdone\n`]);
    assert.deepEqual(lines, [
      ['x'.repeat(maxLineBytes), true],
      ['done', false],
    ]);
  });
});

test('any chunking of any bytes gives the same lines', () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 12 }),
    fc
      .constantFrom('\n', '\r', '\r\n', 'é', '€', '😀', 'x'.repeat(30), '\0')
      .map((text) => new Uint8Array(Buffer.from(text))),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40 }), fc.array(fc.nat(400), { maxLength: 30 }), (pieces, cuts) => {
      const bytes = Buffer.concat(pieces);
      const places = [0, ...cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b), bytes.length];
      const chunks = places.slice(1).map((place, index) => bytes.subarray(places[index], place));
      const lines = split(chunks, 50);
      assert.deepEqual(lines, split([bytes], 50));
      for (const [text] of lines) assert.ok(Buffer.byteLength(text) <= 50 && !/[\r\n]/.test(text));
    }),
    { numRuns: 1_000 },
  );
});

test('without carriage returns the lines are those of the decoded text', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const sent = Buffer.from(bytes.map((byte) => (byte === 13 ? 10 : byte)));
      const expected = sent.toString('utf8').split('\n');
      if (expected.at(-1) === '') expected.pop();
      assert.deepEqual(texts(sent), expected);
    }),
    { numRuns: 500 },
  );
});
