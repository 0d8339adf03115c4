// The bugs that `npm run test:faults -- --planted` plants still fit the code. The hunts themselves run there only: under
// the test runner a run of the harness did not come to an end.
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { bugs, plant } from './faults/planted.ts';

const product = fileURLToPath(new URL('..', import.meta.url));

test('every bug can still be planted', async () => {
  for (const bug of bugs) await plant(product, bug).remove();
});
