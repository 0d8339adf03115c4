// The fault harness finds what it is there to find: two of the bugs that `npm run test:faults -- --planted` plants.
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { bugs, hunt, plant } from './faults/planted.ts';
import { skipUnless } from './support/absent.ts';

const product = fileURLToPath(new URL('..', import.meta.url));
const skip = skipUnless('own postgres', 'own redis', 'linux /proc');

const names = ['no high-water mark', 'no quarantine'];
for (const name of names) {
  test(`a planted bug is caught: ${name}`, { ...skip, timeout: 240_000 }, async () => {
    assert.ok(await hunt(product, { first: 1, seconds: 12, names: [name] }));
  });
}

test('every bug can still be planted', async () => {
  for (const bug of bugs) await plant(product, bug).remove();
});
