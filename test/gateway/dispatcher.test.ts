// Runners that wait: however many do, a job is placed by one transaction, on one of them, soon after it was submitted.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, test } from 'node:test';
import { type Client, createClient } from '../../src/client/client.ts';
import { connectionFigures, workFigures } from '../../src/metrics-registry.ts';
import { type Assignment, claimAnswer, registerAnswer } from '../../src/protocol/control.ts';
import { adminToken, type Door, openDoor } from '../support/door.ts';
import { call } from '../support/feeder.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { createProject, jobState, submit } from '../support/stack.ts';
import { until } from '../support/until.ts';

const project = 'p-wait';
const runnerToken = 'r'.repeat(40);
const waitSeconds = 20;
let door: Door;
let client: Client;
const leaving: AbortController[] = [];
before(async () => {
  door = await openDoor({ ASTRAML_BOOTSTRAP_RUNNER_TOKEN: runnerToken });
  client = createClient({ url: door.url, token: adminToken });
  await createProject(client, project, ['true']);
});
afterEach(() => leaving.splice(0).forEach((leave) => leave.abort()));
after(async () => {
  await door.close();
  await expectNoLeaks();
});

async function signOn(name: string): Promise<string> {
  const gpus = [{ index: 0, model: 'virtual', memoryBytes: 0 }];
  const body = { name, version: '0', labels: [name], gpus, bootId: 'boot' };
  return registerAnswer.parse(await call(door.url, runnerToken, 'register', body)).runnerId;
}

type Waiting = { answer: Promise<Assignment | null>; leave: AbortController };

/** A runner's claim, which ends when it is answered or left. */
function claim(runnerId: string, requestId: string = randomUUID()): Waiting {
  const leave = new AbortController();
  leaving.push(leave);
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${runnerToken}` };
  const body = JSON.stringify({ runnerId, freeGpus: [0], requestId, waitSeconds });
  const answered = fetch(`${door.url}/runner/v1/claim`, { method: 'POST', headers, body, signal: leave.signal });
  const answer = answered.then(async (response) => claimAnswer.parse(await response.json()).assignment);
  answer.catch(() => {});
  return { answer, leave };
}

// The gateway runs in this process, with its figures.
const sumOf = async (figure: { get(): Promise<{ values: { value: number }[] }> }) =>
  (await figure.get()).values.reduce((sum, { value }) => sum + value, 0);
const countPlacements = () => sumOf(workFigures.placements);
const untilWaiting = (count: number) =>
  until(async () => (await sumOf(connectionFigures.claims)) === count, {
    timeoutMs: 20_000,
    what: `${count} claims wait`,
  });

test('with forty runners that wait each job costs one placement, and all get one', async () => {
  const ids = await Promise.all(Array.from({ length: 40 }, (_, index) => signOn(`many-${index}`)));
  const claims = ids.map((id) => claim(id));
  await untilWaiting(40);
  const before = await countPlacements();
  const jobs = [];
  for (let n = 0; n < 40; n++) jobs.push((await submit(client, project, { resources: { gpus: 1 } })).id);
  const assigned = await Promise.all(claims.map(({ answer }) => answer));
  assert.deepEqual(assigned.map((assignment) => assignment?.job.id).sort(), jobs.sort());
  assert.equal((await countPlacements()) - before, 40);
});

test('a claim whose client has left gets nothing', async () => {
  const [gone, there] = [await signOn('gone'), await signOn('there')];
  const left = claim(gone);
  await untilWaiting(1);
  left.leave.abort();
  await untilWaiting(0);
  const job = await submit(client, project, { resources: { gpus: 1, labels: ['gone'] } });
  const other = claim(there);
  await untilWaiting(1);
  assert.equal((await jobState(client, job.id)).state, 'QUEUED');
  const next = await submit(client, project, { resources: { gpus: 1, labels: ['there'] } });
  assert.equal((await other.answer)?.job.id, next.id);
  assert.equal((await claim(gone).answer)?.job.id, job.id);
});

test('an answer that was lost comes again for the same request, to the call that waits last', async () => {
  const id = await signOn('twice');
  const requestId = randomUUID();
  const first = claim(id, requestId);
  await untilWaiting(1);
  const second = claim(id, requestId);
  assert.equal(await first.answer, null);
  const job = await submit(client, project, { resources: { gpus: 1, labels: ['twice'] } });
  const assignment = await second.answer;
  assert.equal(assignment?.job.id, job.id);
  assert.deepEqual(await claim(id, requestId).answer, assignment);
});
