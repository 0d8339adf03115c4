// Cursors come back from anybody: whatever is sent is a position of the stream or a refusal, never anything else.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { isJobPosition } from '../../src/job/list.ts';
import { Refusal } from '../../src/errors.ts';
import { decodeCursor, decodeNumber, encodeCursor } from '../../src/live/cursor.ts';

const stream = fc.string();
/** No position of ours holds a NUL, which Postgres could not compare with. */
const text = fc.string({ unit: 'binary' }).filter((value) => !value.includes('\0'));
const position = fc.array(fc.oneof(text, fc.maxSafeInteger()));

function codeOf(work: () => unknown): string | null {
  try {
    work();
    return null;
  } catch (error) {
    assert.ok(error instanceof Refusal);
    return error.code;
  }
}

suite('A cursor', () => {
  test('comes back as the position it was made of', () => {
    fc.assert(
      fc.property(stream, position, (name, parts) => {
        assert.deepEqual(decodeCursor(name, encodeCursor(name, parts)), parts);
      }),
    );
    fc.assert(
      fc.property(fc.maxSafeNat(), (line) => assert.equal(decodeNumber('log:a', encodeCursor('log:a', [line])), line)),
    );
  });

  test('of one stream opens no other', () => {
    fc.assert(
      fc.property(stream, stream, position, (name, other, parts) => {
        fc.pre(name !== other);
        assert.equal(
          codeOf(() => decodeCursor(other, encodeCursor(name, parts))),
          'CURSOR_WRONG_STREAM',
        );
      }),
    );
  });

  test('that is garbage is refused as such', () => {
    const garbage = fc.oneof(
      fc.string(),
      fc.base64String(),
      fc.string({ unit: 'binary' }),
      fc.anything().map((value) => Buffer.from(JSON.stringify(value) ?? '').toString('base64url')),
      fc.array(fc.jsonValue()).map((value) => Buffer.from(JSON.stringify(value)).toString('base64url')),
      fc.uint8Array().map((bytes) => Buffer.from(bytes).toString('base64url')),
    );
    fc.assert(
      fc.property(garbage, (text) => {
        assert.match(codeOf(() => decodeNumber('log:job_1', text)) ?? '', /^CURSOR_(INVALID|WRONG_STREAM)$/);
      }),
      { numRuns: 2_000 },
    );
  });

  test('that was bent a little is refused, or is still a position', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(200), fc.integer({ min: 0, max: 255 }), (line, at, byte) => {
        const bytes = Buffer.from(encodeCursor('log:job_1', [line]), 'base64url');
        bytes[at % bytes.length] = byte;
        const bent = bytes.toString('base64url');
        const code = codeOf(() => assert.ok(Number.isSafeInteger(decodeNumber('log:job_1', bent))));
        assert.ok(code === null || code.startsWith('CURSOR_'), String(code));
      }),
      { numRuns: 2_000 },
    );
  });

  test('of jobs takes no position of another shape', () => {
    const part = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.double(),
      fc.constant(null),
      fc.date({ noInvalidDate: true }).map((date) => date.toISOString()),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 4 }), (parts) => {
        for (const field of ['CREATED_AT', 'UPDATED_AT', 'PRIORITY'] as const) {
          if (isJobPosition(parts, field)) assert.equal(parts.length, field === 'PRIORITY' ? 3 : 2);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
