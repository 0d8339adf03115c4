// Retention: what is past its time is removed in steps, and readers are told what is missing; what runs stays whole.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { sql } from 'drizzle-orm';
import { pruneRunsStep, pruneStep } from '../../src/gateway/background/upkeep.ts';
import { changeJob } from '../../src/job/job.ts';
import { commit, type Store } from '../../src/live/commit.ts';
import { appendLog } from '../../src/log/append.ts';
import { pruneLogs } from '../../src/log/log.ts';
import { prunePoints, pruneWindows } from '../../src/metric/retention.ts';
import {
  createProject,
  createSchedule,
  dataOf,
  type Door,
  openDoor,
  openSocket,
  post,
  submitJob,
} from '../support/door.ts';
import { addPoints, closeWindows, endJob, rollUpAll } from '../support/measure.ts';

let door: Door;
let store: Store;
before(async () => {
  door = await openDoor({ ASTRAML_METRIC_RAW_DAYS: '10', ASTRAML_METRIC_WINDOW_DAYS: '20' });
  ({ store } = door.gateway);
  await createProject(door.port, 'p-kept');
});
after(() => door.close());

const newJob = () => submitJob(door.port, 'p-kept');

async function writeLines(jobId: string, chunks: number): Promise<void> {
  for (let n = 0; n < chunks; n++) {
    const lines = [1, 2].map((i) => ({ time: 1_000, stream: 'STDOUT' as const, text: `chunk ${n} line ${i}` }));
    await commit(store, (tx) => changeJob(tx, jobId, (locked) => appendLog(tx, locked, 1, lines)));
  }
}

type Logs = {
  nodes: { seq: number }[];
  gaps: { fromSeq: number; toSeq: number; reason: string }[];
  pageInfo: { endCursor: string; hasPreviousPage: boolean };
};

async function logs(id: string, args: string): Promise<Logs> {
  const page = `nodes { seq } gaps { fromSeq toSeq reason } pageInfo { endCursor hasPreviousPage }`;
  const data = await dataOf(door.port, {
    query: `query ($id: ID!) { job(id: $id) { logs(${args}) { ${page} } } }`,
    variables: { id },
  });
  return (data['job'] as unknown as { logs: Logs }).logs;
}

/** What a subscription sends until it completes. */
async function follow<T>(query: string, variables: object): Promise<T[]> {
  const socket = await openSocket(door.port);
  socket.send({ id: '1', type: 'subscribe', payload: { query, variables } });
  const batches: T[] = [];
  for (;;) {
    const { type, payload } = await socket.next();
    if (type === 'complete') break;
    const { data, errors } = payload as { data: Record<string, T>; errors?: unknown };
    assert.equal(errors, undefined, JSON.stringify(payload));
    batches.push(...Object.values(data));
  }
  await socket.close();
  return batches;
}

const count = async (table: string, jobId: string) => {
  const [row] = await store.database.db.execute<{ n: string }>(
    sql`select count(*) as n from ${sql.raw(table)} where job_id = ${jobId}`,
  );
  return Number(row?.n);
};

async function pruneAll(days: number, prune: Parameters<typeof pruneStep>[2]): Promise<void> {
  const step = pruneStep(store, days, prune);
  while (await step());
}

suite('a log past retention', () => {
  let jobId: string;
  before(async () => {
    jobId = await newJob();
    await writeLines(jobId, 10); // 20 lines
    await endJob(store, jobId, 31);
  });

  test('loses its first lines first, in bounded steps; what is missing is a gap in pages and streams', async () => {
    const { pageInfo } = await logs(jobId, 'first: 3');
    await commit(store, (tx) => pruneLogs(tx, [jobId], 4)); // 8 lines
    const gap = { fromSeq: 1, toSeq: 8, reason: 'RETENTION' };
    const forward = await logs(jobId, 'first: 100');
    assert.deepEqual([forward.gaps, forward.nodes[0]?.seq, forward.nodes.length], [[gap], 9, 12]);
    const backward = await logs(jobId, 'last: 100');
    assert.deepEqual([backward.gaps, backward.nodes.length], [[gap], 12]);
    const full = await logs(jobId, 'last: 12');
    assert.deepEqual([full.gaps, full.nodes.length, full.pageInfo.hasPreviousPage], [[], 12, true]);
    const found = await logs(jobId, 'first: 100, filter: { search: "line 2" }');
    assert.deepEqual([found.gaps, found.nodes.length], [[gap], 6], 'with a filter too');
    const resumed = await logs(jobId, `first: 1, after: "${pageInfo.endCursor}"`);
    assert.deepEqual(resumed.gaps, [{ ...gap, fromSeq: 4 }], 'a cursor into what is gone is valid');
    const inside = await logs(jobId, `first: 2, after: "${forward.pageInfo.endCursor}"`);
    assert.deepEqual([inside.gaps, inside.nodes], [[], []]);
  });

  test('is one gap when all of it is gone, for pages, streams and resumed streams', async () => {
    const { pageInfo } = await logs(jobId, 'first: 3');
    await pruneAll(30, pruneLogs);
    assert.equal(await count('log_chunk', jobId), 0);
    const gap = { fromSeq: 1, toSeq: 20, reason: 'RETENTION' };
    assert.deepEqual((await logs(jobId, 'first: 5')).gaps, [gap]);
    assert.deepEqual((await logs(jobId, 'last: 5')).gaps, [gap]);
    const query = `subscription ($id: ID!, $after: String) {
      jobLogs(jobId: $id, after: $after) { lines { seq } gaps { fromSeq toSeq reason } done } }`;
    type Batch = { lines: unknown[]; gaps: unknown[]; done: boolean };
    assert.deepEqual(await follow<Batch>(query, { id: jobId }), [{ lines: [], gaps: [gap], done: true }]);
    const [resumed] = await follow<Batch>(query, { id: jobId, after: pageInfo.endCursor });
    assert.deepEqual(resumed?.gaps, [{ ...gap, fromSeq: 12 }]);
  });

  test('is kept while its job runs or ended lately, and removed once when several gateways prune at once', async () => {
    const [running, lately, old] = [await newJob(), await newJob(), await newJob()];
    for (const id of [running, lately, old]) await writeLines(id, 3);
    await endJob(store, lately, 29);
    await endJob(store, old, 31);
    await Promise.all([1, 2, 3].map(() => pruneAll(30, pruneLogs)));
    const left = await Promise.all([running, lately, old].map((id) => count('log_chunk', id)));
    assert.deepEqual(left, [3, 3, 0]);
  });
});

type Windows = { windowSeconds: number; nodes: { windowSeconds: number; count: number; max: number }[] };

async function windows(id: string, args = ''): Promise<Windows> {
  const query = `query ($id: ID!) { job(id: $id) { metrics {
    windows(first: 500${args}) { windowSeconds nodes { windowSeconds count max } } } } }`;
  const data = await dataOf(door.port, { query, variables: { id } });
  const [metric] = (data['job'] as unknown as { metrics: { windows: Windows }[] }).metrics;
  assert.ok(metric);
  return metric.windows;
}

suite('what was measured', () => {
  const start = 1_700_000_000 - (1_700_000_000 % 3_600);
  const points = Array.from({ length: 400 }, (_, n) => ({ value: n, step: n, time: start + n * 20 }));
  const sum = ({ nodes }: Windows) => nodes.reduce((all, window) => all + window.count, 0);

  test('goes from fine to coarse: points and own windows, five minutes, and an hour for good', async () => {
    const id = await newJob();
    await addPoints(store, id, points);
    assert.equal((await windows(id)).windowSeconds, 30);
    await endJob(store, id, 11);
    await pruneStep(store, 10, prunePoints)();
    assert.equal(await count('metric_chunk', id), 0);
    assert.ok((await count('metric_window', id)) > 0 || (await count('metric_tier', id)) > 0, 'windows wait for tiers');
    await rollUpAll(store);
    await pruneAll(10, prunePoints);
    assert.equal(await count('metric_window', id), 0);
    const middle = await windows(id);
    assert.deepEqual([middle.windowSeconds, sum(middle)], [300, 400]);
    assert.equal((await windows(id, ', windowSeconds: 30')).windowSeconds, 300, 'coarser ones answer');
    assert.equal((await windows(id, ', windowSeconds: 900')).windowSeconds, 900);

    await endJob(store, id, 21);
    await pruneAll(20, pruneWindows);
    const coarse = await windows(id);
    assert.deepEqual([coarse.windowSeconds, sum(coarse), coarse.nodes.at(-1)?.max], [3_600, 400, 399]);
    const query = `subscription ($id: ID!) { jobMetrics(jobId: $id) { windows { windowSeconds count } done } }`;
    const batches = await follow<{ windows: { count: number }[]; done: boolean }>(query, { id });
    assert.equal(batches.at(-1)?.done, true);
    assert.equal(
      batches.flatMap((batch) => batch.windows).reduce((all, window) => all + window.count, 0),
      400,
    );
  });

  test('stays at its own length when no tier fits', async () => {
    const data = await dataOf(door.port, {
      query: `mutation ($input: SubmitJobInput!) { submitJob(input: $input) { ... on SubmitJobPayload { job { id } } } }`,
      variables: { input: { spec: { projectId: 'p-kept', model: 'm', dataset: 'd', metrics: { windowSeconds: 7 } } } },
    });
    const { id } = (data['submitJob'] as unknown as { job: { id: string } }).job;
    await addPoints(store, id, points.slice(0, 20));
    await endJob(store, id, 400);
    await rollUpAll(store);
    await pruneAll(10, prunePoints);
    await pruneAll(20, pruneWindows);
    const kept = await windows(id);
    assert.deepEqual([kept.windowSeconds, sum(kept)], [7, 20]);
  });

  test('is asked for at a length that exists, and not at two', async () => {
    const id = await newJob();
    await addPoints(store, id, points.slice(0, 5));
    for (const [args, message] of [
      ['windowSeconds: 45', /multiple of 30|windows are of 30 s/],
      ['windowSeconds: 60, maxWindows: 5', /not both/],
      ['maxWindows: 0', /1 at least/],
    ] as const) {
      const query = `query ($id: ID!) { job(id: $id) { metrics { windows(${args}) { windowSeconds } } } }`;
      const { errors } = (await post(door.port, { query, variables: { id } })).json();
      assert.equal(errors?.[0]?.extensions.code, 'BAD_USER_INPUT');
      assert.match(errors[0].message, message);
    }
  });

  test('is followed at any length: each window while it fills and once more when its time is over', async () => {
    const id = await newJob();
    const query = `subscription ($id: ID!, $after: String) { jobMetrics(jobId: $id, names: ["m"], windowSeconds: 300, after: $after) {
      windows { start count revision provisional windowSeconds } endCursor caughtUp done } }`;
    type Batch = {
      windows: { start: string; count: number; revision: number; provisional: boolean }[];
      endCursor: string;
      done: boolean;
    };
    const socket = await openSocket(door.port);
    const next = async () => {
      const message = await socket.next();
      return (message.payload as { data: { jobMetrics: Batch } }).data.jobMetrics;
    };
    await addPoints(store, id, [{ value: 1, time: start }]);
    socket.send({ id: '1', type: 'subscribe', payload: { query, variables: { id } } });
    const first = await next();
    assert.deepEqual(
      first.windows.map(({ count: n, provisional }) => [n, provisional]),
      [[1, true]],
    );
    await addPoints(store, id, [{ value: 2, time: start + 100 }]);
    const second = await next();
    assert.deepEqual(
      second.windows.map(({ count: n, provisional }) => [n, provisional]),
      [[2, true]],
    );
    await closeWindows(store, id); // its parts are closed, its time is not over
    const third = await next();
    assert.deepEqual(
      third.windows.map(({ provisional }) => provisional),
      [true],
    );
    await addPoints(store, id, [{ name: 'other', value: 0, time: start + 400 }]);
    await addPoints(store, id, [{ name: 'other', value: 0, time: start + 700 }]);
    const fourth = await next();
    assert.deepEqual(
      fourth.windows.map(({ count: n, provisional }) => [n, provisional]),
      [[2, false]],
    );
    const revisions = [first, second, third, fourth].map((batch) => batch.windows[0]?.revision ?? 0);
    assert.deepEqual(
      revisions,
      revisions.toSorted((a, b) => a - b),
    );
    assert.equal(new Set(revisions).size, 4);
    await socket.close();
    await endJob(store, id);
    const resumed = await follow<Batch>(query, { id, after: third.endCursor });
    assert.deepEqual(
      resumed.flatMap((batch) => batch.windows).map(({ count: n, provisional }) => [n, provisional]),
      [[2, false]],
      'a follower that was away is told too',
    );
  });
});

suite('due times of a schedule past retention', () => {
  test('are removed in steps, but for the newest of each schedule', async () => {
    const { db } = store.database;
    const ids = [await createSchedule(door.port, 'p-kept'), await createSchedule(door.port, 'p-kept')];
    const write = (id: string, daysAgo: string, minutes: number) =>
      db.execute(sql`insert into schedule_run (schedule_id, due_at, last_due_at, job_id, decided_at)
        select ${id}, at, at, 'job_' || n, at from generate_series(1, ${minutes}::integer) as n,
          lateral (select now() - ${daysAgo}::interval - make_interval(mins => n) as at) as due`);
    await write(ids[0]!, '31 days', 2_500);
    await write(ids[0]!, '29 days', 10);
    await write(ids[1]!, '40 days', 5);
    const step = pruneRunsStep(store, 30);
    let steps = 0;
    while (await step()) steps++;
    assert.equal(steps, 3, 'a thousand at a time');
    const rows = await db.execute<{ schedule_id: string; n: string }>(
      sql`select schedule_id, count(*) as n from schedule_run where schedule_id in ${ids} group by 1`,
    );
    assert.deepEqual(Object.fromEntries([...rows].map((row) => [row.schedule_id, Number(row.n)])), {
      [ids[0]!]: 10,
      [ids[1]!]: 1,
    });
  });
});
