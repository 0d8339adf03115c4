// Mistakes that the fault harness plants into a copy of the source: each must fit the source as it is now. The harness
// says so as well, but only when it runs, minutes later.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { bugs } from '../faults/planted.ts';

for (const { name, patches } of bugs) {
  test(`"${name}" fits the source`, () => {
    for (const [file, text] of patches) {
      const source = readFileSync(join(import.meta.dirname, '../..', file), 'utf8');
      assert.equal(source.split(text).length - 1, 1, `${file} has it once: ${text}`);
    }
  });
}
