// The fault harness, short: two seeds, Redis without its data on disk and with. `npm run test:faults` runs
// as many as one likes.
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { suite, test } from 'node:test';
import { percentile } from '../faults/bystanders.ts';
import { type Result, runOnce, sometimes } from '../faults/run.ts';
import { skipUnless } from '../support/absent.ts';

const product = fileURLToPath(new URL('../..', import.meta.url));

suite('while things are killed, cut, held and repeated', skipUnless('own postgres', 'own redis', 'linux /proc'), () => {
  const results: Result[] = [];
  for (const [seed, persistence] of [
    [1, 'none'],
    [3, 'aof always'],
  ] as const) {
    test(
      `nothing is lost and nothing happens twice: seed ${seed}, Redis ${persistence}`,
      { timeout: 280_000 },
      async () => {
        const result = await runOnce({ seed, seconds: 20, persistence, product });
        results.push(result);
        const { violations, figures, faults, sometimes: taken } = result;
        const [p50, p99] = [percentile(result.waitsMs, 0.5), percentile(result.waitsMs, 0.99)];
        console.log(JSON.stringify({ ...figures, faults, ...taken, lineStoredAfterMs: { p50, p99 } }));
        assert.deepEqual(violations, []);
        assert.ok(figures.jobs > 0 && figures.lines > 0 && result.delivered > 0);
      },
    );
  }

  test('the faults hit: each rare path was taken', () => {
    for (const name of sometimes) {
      assert.ok(
        results.some((result) => result.sometimes[name] > 0),
        `${name} never happened`,
      );
    }
  });
});
