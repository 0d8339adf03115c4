// A job with many metric names keeps nobody else waiting, on whole installations: a bystander of another project runs
// beside it from submission to SUCCEEDED. How late its lines come, with and without the other job, is printed.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { skipUnless } from '../support/absent.ts';
import { compareBystanders } from '../support/bystander.ts';
import {
  manyNames,
  moreNames,
  sixtyThousandNames,
  submitJob,
  untilRunning,
  untilSucceeded,
} from '../support/hostile-jobs.ts';
import { type Installation, installations } from '../support/installation.ts';
import { createProject } from '../support/stack.ts';

const timeout = 400_000;

for (const { kind, needs, start } of installations) {
  suite(`beside a job with many metric names, ${kind}`, skipUnless(...needs), () => {
    let installation: Installation;
    before(
      async () => {
        installation = await start();
        await createProject(installation.first, 'p-names');
      },
      { timeout },
    );
    after(() => installation.stop());

    test('6,600 and 16,000 names at once stop no bystander, and all are kept', { timeout }, async (t) => {
      const jobs: { id: string; names: number }[] = [];
      await compareBystanders(t, installation, {
        async begin() {
          jobs.push({ id: await submitJob(installation, 'p-names', manyNames), names: 6_600 });
          jobs.push({ id: await submitJob(installation, 'p-names', moreNames), names: 16_000 });
          for (const { id } of jobs) await untilRunning(installation, id);
        },
      });
      for (const { id, names } of jobs) {
        await untilSucceeded(installation, id);
        assert.deepEqual(await namesOf(installation, id), { names, points: names, last: names - 1 });
      }
    });

    test(
      '60,000 names, 20,000 of them in a second, stop no bystander; the first 20,000 are kept, and the job is told once',
      { timeout },
      async (t) => {
        let id = '';
        await compareBystanders(t, installation, {
          async begin() {
            id = await submitJob(installation, 'p-names', sixtyThousandNames);
            await untilRunning(installation, id);
          },
        });
        await untilSucceeded(installation, id);
        assert.deepEqual(await namesOf(installation, id), { names: 20_000, points: 20_000, last: 19_999 });
        const texts = await systemLinesOf(installation, id);
        const mentions = texts.filter((text) => text.includes('m/20000'));
        assert.equal(mentions.length, 1, `one line names the first metric that was dropped:\n${texts.join('\n')}`);
      },
    );
  });
}

/** How many names a job has, the points of all, and the highest number among `m/0`, `m/1` … */
async function namesOf(installation: Installation, id: string): Promise<Record<string, number>> {
  const [row] = await installation.sql(`
    select count(*)::int names, sum(count)::int points, max(split_part(name, '/', 2)::int) last
    from metric where job_id = '${id}' and name like 'm/%'`);
  return { ...(row as Record<string, number>) };
}

async function systemLinesOf({ first }: Installation, id: string): Promise<string[]> {
  const query =
    'query ($id: ID!) { job(id: $id) { logs(last: 1000, filter: { streams: [SYSTEM] }) { nodes { text } } } }';
  type Answer = { job: { logs: { nodes: { text: string }[] } } };
  const { job } = await first.request<Answer>(query, { id }, { repeatable: true });
  return job.logs.nodes.map(({ text }) => text);
}
