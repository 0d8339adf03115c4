// Records that the database refuses keep nobody waiting, on whole installations: a bystander of another project runs
// beside them from submission to SUCCEEDED, and what waits behind such a record goes on.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { skipUnless } from '../support/absent.ts';
import { compareBystanders } from '../support/bystander.ts';
import {
  readEvents,
  readWholeLog,
  refusedRecords,
  refuseRows,
  submitJob,
  untilRunning,
  untilSucceeded,
} from '../support/hostile-jobs.ts';
import { type Installation, installations } from '../support/installation.ts';
import { createProject } from '../support/stack.ts';

const timeout = 400_000;

for (const { kind, needs, start } of installations) {
  suite(`beside records that the database refuses, ${kind}`, skipUnless(...needs), () => {
    let installation: Installation;
    before(
      async () => {
        installation = await start();
        await refuseRows(installation);
      },
      { timeout },
    );
    after(() => installation.stop());

    test('one job with two of them stops no bystander, and goes on behind them itself', { timeout }, async (t) => {
      await createProject(installation.first, 'p-refused');
      let id = '';
      await compareBystanders(t, installation, {
        async begin() {
          id = await submitJob(installation, 'p-refused', refusedRecords);
          await untilRunning(installation, id);
        },
      });
      await assertSetAside(installation, id);
    });

    test(
      '30 jobs of three projects with two of them each stop no bystander, nor each other',
      { timeout },
      async (t) => {
        const projects = ['p-refused-1', 'p-refused-2', 'p-refused-3'];
        for (const project of projects) await createProject(installation.first, project);
        const ids: string[] = [];
        await compareBystanders(t, installation, {
          async begin() {
            for (let n = 0; n < 30; n++) {
              ids.push(await submitJob(installation, projects[n % 3] ?? '', refusedRecords));
            }
            await untilRunning(installation, ids[0] ?? '');
          },
        });
        for (const id of ids) await assertSetAside(installation, id);
      },
    );
  });
}

/** The job has succeeded; what was refused is a gap and an event, and all else is there. */
async function assertSetAside(installation: Installation, id: string): Promise<void> {
  await untilSucceeded(installation, id);
  const log = await readWholeLog(installation, id);
  const lines = (from: number) => Array.from({ length: 5 }, (_, index) => `line ${from + index}`);
  // A metric takes no number of the log: whether its gap is shown there too, behind the lines, is left open.
  assert.deepEqual(log.slice(0, 11), [...lines(1), 'REFUSED × 1', ...lines(6)]);
  assert.ok(
    log.slice(11).every((item) => item.startsWith('REFUSED')),
    log.slice(11).join('\n'),
  );
  const names = await installation.sql(`select name from metric where job_id = '${id}' and name not like 'system/%'`);
  assert.deepEqual(
    names.map(({ name }) => name),
    ['kept/loss'],
  );
  const events = await readEvents(installation, id);
  const refused = events.filter(({ type, message }) => /refused/i.test(`${type} ${message}`));
  assert.ok(refused.length > 0, `an event tells of what was refused:\n${JSON.stringify(events)}`);
}
