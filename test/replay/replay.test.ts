// Idempotency keys: when two inputs are the same, and where they differ.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { canonical, differingPaths } from '../../src/replay/replay.ts';

test('canonical JSON does not depend on the order of keys', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
      const reversed = Object.fromEntries(Object.entries(value).reverse());
      assert.equal(canonical(value), canonical(reversed));
      assert.deepEqual(differingPaths(value as Record<string, unknown>, reversed), []);
    }),
    { examples: [[{ '': { x: false }, x: [] }]] },
  );
});

test('leaves whose dotted paths are the same are told apart', () => {
  const nested = { 'a.b': 1, a: { b: 2 } };
  assert.deepEqual(differingPaths(nested, { a: { b: 2 }, 'a.b': 1 }), []);
  assert.deepEqual(differingPaths(nested, { 'a.b': 1, a: { b: 3 } }), ['a.b']);
  assert.deepEqual(differingPaths({ '': { x: 1 } }, { x: 1 }), ['.x', 'x']);
});
