// The fault harness finds what it is there to find: one of the bugs that `npm run test:faults -- --planted` plants.
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { bugs, hunt, plant } from '../faults/planted.ts';
import { skipUnless } from '../support/absent.ts';

const product = fileURLToPath(new URL('../..', import.meta.url));
const skip = skipUnless('own postgres', 'own redis', 'linux /proc');

test('a planted bug is caught: no quarantine', { ...skip, timeout: 240_000 }, async () => {
  assert.ok(await hunt(product, { first: 1, seconds: 12, names: ['no quarantine'] }));
});

test('every bug can still be planted', async () => {
  for (const bug of bugs) await plant(product, bug).remove();
});
