// A schedule whose jobs run: the next due time replaces the running job, and the machine is free for its successor.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { runDueSchedules } from '../../src/schedule/due.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { isAlive } from '../support/processes.ts';
import { createProject, jobState, type Stack, startStack } from '../support/stack.ts';
import { until } from '../support/until.ts';

const project = 'p-replace';
const hour = 3_600_000;
let stack: Stack;

before(async () => {
  stack = await startStack({ gpus: 1, graceMs: 500 });
  await createProject(stack.client, project);
});
after(async () => {
  await stack.stop();
  await expectNoLeaks();
});

type Run = { id: string; state: string; logs: { nodes: { text: string }[] } };

test('the next due time ends the running job and its processes, and its successor gets the GPU', async () => {
  const { client } = stack;
  const spec = { projectId: project, model: 'm', dataset: 'd', command: ['/bin/sh', '-c', 'echo pid $$; sleep 60'] };
  const { createSchedule } = await client.request<{ createSchedule: { schedule: { id: string } } }>(
    `mutation ($input: CreateScheduleInput!) {
      createSchedule(input: $input) { ... on CreateSchedulePayload { schedule { id } } }
    }`,
    { input: { spec, cron: '@hourly', onOverlap: 'REPLACE' } },
  );
  const jobs = async () => {
    const { node } = await client.request<{ node: { runs: { nodes: { job: Run }[] } } }>(
      `query ($id: ID!) { node(id: $id) { ... on Schedule {
        runs(first: 5) { nodes { job { id state logs(last: 5) { nodes { text } } } } }
      } } }`,
      { id: createSchedule.schedule.id },
      { repeatable: true },
    );
    return node.runs.nodes.map(({ job }) => job).toReversed();
  };
  const untilPid = (n: number) =>
    until(
      async () => {
        const line = (await jobs())[n]?.logs.nodes.find(({ text }) => text.startsWith('pid '));
        return Number(line?.text.slice(4));
      },
      { timeoutMs: 20_000, what: `the command of job ${n + 1}` },
    );

  await runDueSchedules(stack.gateway.store, { now: new Date(Date.now() + hour) });
  const pid = await untilPid(0);
  await runDueSchedules(stack.gateway.store, { now: new Date(Date.now() + 2 * hour) });
  const nextPid = await untilPid(1);
  assert.ok(!isAlive(pid), 'the processes of the first are gone before the second runs');
  const [first, second] = await jobs();
  assert.ok(first && second);
  assert.deepEqual([first.state, second.state], ['CANCELLED', 'RUNNING']);
  assert.equal((await jobState(client, first.id)).stateReason?.code, 'REPLACED_BY_SCHEDULE');
  await client.request(`mutation ($id: ID!) { cancelJob(input: { id: $id }) { __typename } }`, { id: second.id });
  await until(async () => (await jobState(client, second.id)).state === 'CANCELLED', {
    timeoutMs: 20_000,
    what: 'end',
  });
  assert.ok(!isAlive(nextPid));
});
