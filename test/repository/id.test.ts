// Ids: UUIDv7 behind the prefix of a type, unique, and in the order of their time.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { idPrefix, newId } from '../../src/id.ts';

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz';

/** The UUID of an id, in hexadecimal digits. */
function uuidOf(id: string): string {
  const bits = [...id.slice(id.indexOf('_') + 1)].reduce(
    (sum, digit) => sum * 32n + BigInt(alphabet.indexOf(digit)),
    0n,
  );
  return bits.toString(16).padStart(32, '0');
}

test('an id is a UUIDv7 of now, with version and variant, behind its prefix', () => {
  const before = Date.now();
  const id = newId('job');
  const uuid = uuidOf(id);
  assert.equal(idPrefix(id), 'job');
  assert.equal(uuid.length, 32);
  const ms = parseInt(uuid.slice(0, 12), 16);
  assert.ok(ms >= before && ms <= Date.now());
  assert.equal(uuid[12], '7');
  assert.match(uuid[16] ?? '', /[89ab]/);
});

test('ids differ, also within a millisecond, and sort by their time', async () => {
  const ids = Array.from({ length: 20_000 }, () => newId('job'));
  assert.equal(new Set(ids).size, ids.length);
  await new Promise((resolve) => setTimeout(resolve, 2));
  const later = newId('job');
  assert.ok(ids.every((id) => id < later));
  assert.equal(idPrefix('p-demo'), undefined);
});
