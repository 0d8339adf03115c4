// Places: how many jobs a runner takes at once is what it says, is counted when jobs are placed, and is named where a job
// waits for one. Every door gives the same reason for a wait.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { sql } from 'drizzle-orm';
import {
  assignment as assignmentSchema,
  claimAnswer,
  defaultPlaces,
  registerAnswer,
} from '../../src/protocol/control.ts';
import { commandLine } from '../support/cli.ts';
import { adminToken, bearer, dataOf, type Door, openDoor, send } from '../support/door.ts';
import { call } from '../support/feeder.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { createProject, followLog, jobState, startStackOnServer, submit } from '../support/stack.ts';
import { createClient } from '../../src/client/client.ts';
import { until } from '../support/until.ts';

const project = 'p-places';
const runnerToken = 'r'.repeat(40);
let door: Door;
let client: ReturnType<typeof createClient>;
const { run, remove } = commandLine(() => ({
  ASTRAML_URL: door.url,
  ASTRAML_TOKEN: adminToken,
  ASTRAML_PROJECT: project,
}));
before(async () => {
  door = await openDoor({ ASTRAML_BOOTSTRAP_RUNNER_TOKEN: runnerToken });
  client = createClient({ url: door.url, token: adminToken });
  await createProject(client, project, ['true']);
});
after(async () => {
  await door.close();
  remove();
  await expectNoLeaks();
});

const gpusOf = (count: number, model = 'virtual') =>
  Array.from({ length: count }, (_, index) => ({ index, model, memoryBytes: 0 }));

/** Signs a runner on as a program of it does; returns its id. */
async function signOn(name: string, body: object): Promise<string> {
  const request = { name, version: '0', labels: [name], gpus: gpusOf(1), bootId: 'boot', ...body };
  return registerAnswer.parse(await call(door.url, runnerToken, 'register', request)).runnerId;
}

async function claim(runnerId: string, freeGpus: number[] = []): Promise<string | null> {
  const request = { runnerId, freeGpus, requestId: randomUUID(), waitSeconds: 0 };
  const { assignment } = claimAnswer.parse(await call(door.url, runnerToken, 'claim', request));
  return assignment && assignmentSchema.parse(assignment).job.id;
}

const start = (resources: object) => submit(client, project, { resources });
const execute = (statement: ReturnType<typeof sql>) => door.gateway.store.database.db.execute(statement);

type Shown = { name: string; places: number; placesBusy: number };
async function shown(name: string): Promise<Shown | undefined> {
  const data = await dataOf(door.port, { query: '{ runners { nodes { name places placesBusy } } }' });
  const { nodes } = data['runners'] as unknown as { nodes: Shown[] };
  return nodes.find((node) => node.name === name);
}

/** The reason by GraphQL and by REST; they must agree. */
async function reasonOf(id: string): Promise<{ code: string; message: string; hint: string | null }> {
  const { stateReason } = await jobState(client, id);
  assert.ok(stateReason);
  const { code, message, hint, logExcerpt } = stateReason;
  const answer = await send(door.port, { method: 'GET', path: `/v1/jobs/${id}`, headers: bearer(adminToken) });
  const { state_reason: rest } = JSON.parse(answer.text) as { state_reason: object };
  const seconds = (value: object) => JSON.parse(JSON.stringify(value).replace(/in \d+ s/, 'in # s')) as object;
  assert.deepEqual(seconds(rest), seconds({ code, message, hint, log_excerpt: logExcerpt }));
  return { code, message, hint };
}

suite('A runner', () => {
  test('has the places that it says, others when it says others, and the default when it says none', async () => {
    await signOn('says', { places: 3 });
    assert.deepEqual(await shown('says'), { name: 'says', places: 3, placesBusy: 0 });
    await signOn('says', { places: 5 });
    assert.equal((await shown('says'))?.places, 5);
    for (const gpus of [0, 1, 2, 8]) {
      await signOn('says', { gpus: gpusOf(gpus) }); // as an older build does
      assert.equal((await shown('says'))?.places, Math.max(4, 2 * gpus));
      assert.equal(defaultPlaces(gpus), Math.max(4, 2 * gpus));
    }
  });

  test('that says a number which cannot be is refused with the name of the field', async () => {
    for (const places of [0, -1, 1.5, 1_001, '4', null]) {
      await assert.rejects(signOn('wrong', { places }), /places: /, String(places));
    }
    assert.equal(await shown('wrong'), undefined);
  });

  test('gets no more jobs than it has places, and the next one when one has ended', async () => {
    const id = await signOn('three', { places: 3 });
    const request = { gpus: 0, labels: ['three'] };
    const jobs = [await start(request), await start(request), await start(request), await start(request)];
    for (const job of jobs.slice(0, 3)) assert.equal(await claim(id), job.id);
    assert.equal(await claim(id), null, 'it has three places');
    assert.deepEqual(await shown('three'), { name: 'three', places: 3, placesBusy: 3 });
    const text = await run(['runners', '--header']);
    assert.match(text.stdout, /^NAME\tSTATE\tGPUS\tBUSY\tPLACES\t/);
    assert.match(text.stdout, /\nthree\tONLINE\t1\t0\t3\/3\tvirtual\t/);
    const listed = JSON.parse((await run(['runners', '--json=name,places,placesBusy'])).stdout) as Shown[];
    assert.deepEqual(
      listed.find(({ name }) => name === 'three'),
      { name: 'three', places: 3, placesBusy: 3 },
    );

    await signOn('three', { places: 3 }); // it is online still, however long the commands took
    const { code, message, hint } = await reasonOf(jobs[3]?.id ?? '');
    assert.equal(code, 'WAITING_FOR_PLACES');
    assert.match(message, /1 runner matches a job without GPUs with label three; no place is free: 3 of 3 are taken\./);
    assert.match(hint ?? '', /--places/);
    await signOn('three', { places: 3 });
    const page = await run(['jobs', 'show', jobs[3]?.id ?? '']);
    assert.ok(page.stdout.includes(`\nwhy\t${message}\nhint\t${hint}\n`), page.stdout + page.stderr);
    await execute(sql`update attempt set finished_at = now() where runner_id = ${id} and gpus = '{}'
      and id = (select min(id) from attempt where runner_id = ${id})`);
    assert.equal(await claim(id), jobs[3]?.id);
  });
});

suite('Every door says that a job waits', () => {
  test('for a runner', async () => {
    const { code, hint } = await reasonOf((await start({ gpus: 64 })).id);
    assert.equal(code, 'WAITING_FOR_RUNNER');
    assert.ok(hint);
  });

  test('for GPUs that are busy, and for its turn', async () => {
    const id = await signOn('gpus', { places: 9, gpus: gpusOf(2, 'A100') });
    const request = { gpus: 2, gpuModel: 'A100', labels: ['gpus'] };
    const [first, second] = [await start(request), await start(request)];
    assert.equal(await claim(id, [0, 1]), first.id);
    const busy = await reasonOf(second.id);
    assert.deepEqual([busy.code, busy.hint], ['WAITING_FOR_GPUS', null]);
    assert.match(busy.message, /1 runner matches 2 A100 GPUs with label gpus; not enough GPUs are free\./);
    await execute(sql`update attempt set finished_at = now() where runner_id = ${id}`);
    const turn = await reasonOf(second.id);
    assert.match(turn.message, /it is not the turn of this job yet\./);
    await execute(sql`update job set left_out = array[${id}]::text[] where id = ${second.id}`);
    assert.match((await reasonOf(second.id)).hint ?? '', /It failed twice in the same way on gpus/);
  });

  test('for its next attempt, with the log of the last one', async () => {
    const { id } = await start({ gpus: 0, labels: ['none'] });
    await execute(sql`update job set not_before = now() + interval '1 hour', reason_code = 'RETRY_BACKOFF',
      reason_message = 'Exit code 1.', reason_hint = 'Look.', log_excerpt = '["last words"]' where id = ${id}`);
    const { code, message, hint } = await reasonOf(id);
    assert.deepEqual([code, hint], ['RETRY_BACKOFF', 'Look.']);
    assert.match(message, /^Exit code 1\. It may start in \d+ s\.$/);
  });

  test('when it has waited too long: the reason that it had stands in the sentence', async () => {
    await signOn('late', { places: 1, gpus: [] });
    const request = { gpus: 0, labels: ['late'] };
    const id = await signOn('late', { places: 1, gpus: [] });
    const first = await start(request);
    assert.equal(await claim(id), first.id);
    const second = await submit(client, project, { resources: request, queueTimeoutSeconds: 1 });
    await until(async () => (await jobState(client, second.id)).state === 'TIMED_OUT', { timeoutMs: 20_000 });
    const { stateReason } = await jobState(client, second.id);
    assert.match(stateReason?.message ?? '', /no place is free: 1 of 1 are taken\./);
    assert.match(stateReason?.hint ?? '', /--places/);
  });
});

test('a runner program with one place runs one job at a time, whatever the jobs ask for', async () => {
  const stack = await startStackOnServer({ gpus: 4, places: 1 });
  try {
    const lock = JSON.stringify(join(stack.dataDir, 'lock'));
    const alone = `const fs = require('fs'); fs.mkdirSync(${lock}); setTimeout(() => fs.rmdirSync(${lock}), 1_000)`;
    await createProject(stack.client, project, [process.execPath, '-e', alone]);
    const jobs: { id: string }[] = [];
    for (const gpus of [0, 1, 0]) jobs.push(await submit(stack.client, project, { resources: { gpus } }));
    for (const { id } of jobs) {
      await followLog(stack.client, id);
      assert.equal((await jobState(stack.client, id)).state, 'SUCCEEDED', 'no two at once');
    }
  } finally {
    await stack.stop();
  }
});

test('`--places` and ASTRAML_RUNNER_PLACES refuse what is no number of places, with a sentence', async () => {
  const sentence = (text: string) => `--places takes a whole number from 1 to 1000, got "${text}".`;
  const refused: [string, ...string[]][] = [
    ['0', 'runner', 'start'],
    ['1001', 'runner', 'start'],
    ['1.5', 'dev'],
  ];
  for (const [text, ...command] of refused) {
    const { code, stderr } = await run([...command, `--places=${text}`]);
    assert.deepEqual([code, stderr.includes(sentence(text))], [2, true], stderr);
  }
  const env = { ASTRAML_RUNNER_TOKEN: runnerToken, ASTRAML_RUNNER_PLACES: '0' };
  const { code, stderr } = await run(['runner', 'start', '--work-dir', '/tmp/none'], { env });
  assert.equal(code, 2, stderr);
  assert.match(stderr, /ASTRAML_RUNNER_PLACES: must be a whole number from 1 to 1000/);
});
