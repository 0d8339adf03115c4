// Streams over many jobs: whatever writers do at once, a follower misses nothing, repeats nothing, and can go on from
// every cursor. On a real Postgres where there may be one: only there do transactions overlap.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { asc, gt } from 'drizzle-orm';
import { graphql, parse, subscribe } from 'graphql';
import type { Actor } from '../../src/actor.ts';
import { cancelJob } from '../../src/attempt/cancel.ts';
import { readConfig } from '../../src/config.ts';
import { event } from '../../src/event/table.ts';
import { Refusal } from '../../src/errors.ts';
import { contextOf } from '../../src/gateway/context.ts';
import { schema } from '../../src/gateway/graphql/schema.ts';
import { addEvent, changeJob } from '../../src/job/job.ts';
import { commit } from '../../src/live/commit.ts';
import { encodeCursor } from '../../src/live/cursor.ts';
import { ResultBytes } from '../../src/graphql/budget.ts';
import { Feeds } from '../../src/live/feed.ts';
import { createProject } from '../../src/project/project.ts';
import { skipUnless } from '../support/absent.ts';
import {
  createProject as createProjectAt,
  createToken,
  type Door,
  openDoor,
  openSocket,
  submitJob,
} from '../support/door.ts';
import { dataOf } from '../support/door.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { actor, newJob, openStore, testProject, type TestStore } from '../support/store.ts';
import { until } from '../support/until.ts';

let store: TestStore;
let feeds: Feeds;
before(async () => {
  store = await openStore();
  feeds = new Feeds(store.bus);
  await commit(store, (tx) => createProject(tx, store.admin, { id: 'p-other', command: ['true'] }));
});
after(async () => {
  const followed = feeds.size;
  feeds.close();
  await store.close();
  await expectNoLeaks();
  assert.equal(followed, 0, 'nobody follows any more');
});

const contextFor = (by: Actor, on = store, through = feeds) =>
  contextOf({ ...on, feeds: through, config: readConfig({}) }, by, null, new ResultBytes(readConfig({})).open('test'));

type Seen = { id: string; type: string; message: string; job: { id: string } };
type Events = { events: Seen[]; endCursor: string; caughtUp: boolean; done: boolean };
type Jobs = {
  jobs: { id: string; state: string }[];
  removedIds: string[];
  endCursor: string;
  caughtUp: boolean;
  done: boolean;
};

/** A stream with what it has said so far. `stop` ends it; `ended` resolves when it is at its end. */
function follow<Batch>(
  field: string,
  args: string,
  options: { by?: Actor; on?: TestStore; through?: Feeds } = {},
): { batches: Batch[]; stop(): Promise<void>; ended: Promise<void> } {
  const selection = field === 'jobEvents' ? 'events { id type message job { id } }' : 'jobs { id state } removedIds';
  const document = parse(`subscription { ${field}${args} { ${selection} endCursor caughtUp done } }`);
  const contextValue = contextFor(options.by ?? store.admin, options.on, options.through);
  const batches: Batch[] = [];
  let stream: AsyncGenerator | undefined;
  const run = async () => {
    const opened = await subscribe({ schema, document, contextValue });
    if ('errors' in opened) throw opened.errors?.[0]?.originalError;
    stream = opened as AsyncGenerator;
    for await (const { data, errors } of stream as AsyncIterable<{ data?: Record<string, Batch>; errors?: Error[] }>) {
      if (errors?.[0]) throw errors[0];
      batches.push(data?.[field] as Batch);
    }
  };
  const ended = run();
  return { batches, ended, stop: async () => void (await stream?.return(undefined), await ended) };
}

/** What a stream says until it has caught up, or is done. */
async function readAll<Batch extends { caughtUp: boolean }>(field: string, args: string, by?: Actor): Promise<Batch[]> {
  const stream = follow<Batch>(field, args, { ...(by ? { by } : {}) });
  await until(() => stream.batches.at(-1)?.caughtUp, { what: 'the end of the backlog' });
  await stream.stop();
  return stream.batches;
}

const eventsOf = (batches: Events[]) => batches.flatMap((batch) => batch.events);
const note = (jobId: string, message: string, holdMs = 0) =>
  commit(store, async (tx) => {
    await changeJob(tx, jobId, (locked) => addEvent(tx, locked, { type: 'CHECKPOINT', message }));
    if (holdMs > 0) await sleep(holdMs);
  });
const numberOf = ({ message }: Seen) => Number(/\d+$/.exec(message)?.[0] ?? 0);

suite('the events of a project', () => {
  let all: Seen[];
  let live: Events[];

  test('reach a follower whole and in order while eight writers commit in any order', async () => {
    const jobs = await Promise.all(Array.from({ length: 8 }, () => newJob(store)));
    const stream = follow<Events>('jobEvents', `(projectId: "${testProject}")`);
    // The planted variant: ids that are given before the commit, as a serial column's are, and read "from the last on".
    const planted = new Set<string>();
    let writing = true;
    const serial = (async () => {
      for (let last = ''; writing; await sleep(1)) {
        const rows = await store.database.db.select().from(event).where(gt(event.id, last)).orderBy(asc(event.id));
        for (const row of rows) planted.add(row.id);
        last = rows.at(-1)?.id ?? last;
      }
    })();
    const writers = jobs.map(async (_, writer) => {
      for (let n = 0; n < 25; n++) {
        const job = jobs[(writer + Math.floor(Math.random() * 8)) % 8];
        await note(job?.id ?? '', `checkpoint ${writer}`, Math.random() < 0.3 ? Math.random() * 25 : 0);
      }
    });
    await Promise.all(writers);
    writing = false;
    await serial;
    const rows = await store.database.db.select().from(event).orderBy(asc(event.id));
    const written = rows.filter((row) => row.jobId !== null && row.projectId === testProject);
    assert.equal(written.length, 8 + 8 * 25);
    await until(() => eventsOf(stream.batches).length >= written.length, { what: 'every event' });
    await sleep(50); // for what should not come
    await stream.stop();
    live = stream.batches;
    all = eventsOf(live);
    assert.deepEqual(all.map(({ id }) => id).toSorted(), written.map(({ id }) => id).toSorted());
    const numbers = new Map(written.map((row) => [row.id, row.seq ?? 0]));
    for (const job of jobs) {
      const seqs = all.filter((one) => one.job.id === job.id).map(({ id }) => numbers.get(id));
      assert.deepEqual(
        seqs,
        seqs.map((_, index) => index + 1),
        'a job’s events come in its order',
      );
    }
    if (store.database.engine === 'postgres') {
      const missed = written.filter((row) => !planted.has(row.id)).length;
      assert.ok(missed > 0, `a serial cursor would have missed some; it missed ${missed} of ${written.length}`);
    }
  });

  test('go on from every cursor without a gap or a repeat', async () => {
    assert.ok(live.length > 5, `${live.length} batches`);
    for (const [index, { endCursor }] of live.entries()) {
      const before = eventsOf(live.slice(0, index + 1)).length;
      const rest = eventsOf(await readAll<Events>('jobEvents', `(projectId: "${testProject}", after: "${endCursor}")`));
      assert.deepEqual(
        rest.map(({ id }) => id),
        all.slice(before).map(({ id }) => id),
      );
    }
  });

  test('start as many before the end as asked, of the types that are asked', async () => {
    for (const [args, wanted] of [
      ['last: 0', []],
      ['last: 3', all.slice(-3)],
      ['last: 10000', all],
      ['types: [SUBMITTED]', all.filter(({ type }) => type === 'SUBMITTED')],
      ['types: [SUBMITTED], last: 2', all.filter(({ type }) => type === 'SUBMITTED').slice(-2)],
      ['types: [ALERT]', []],
      ['types: []', []],
    ] as const) {
      const batches = await readAll<Events>('jobEvents', `(projectId: "${testProject}", ${args})`);
      assert.deepEqual(
        eventsOf(batches).map(({ id }) => id),
        wanted.map(({ id }) => id),
        args,
      );
    }
  });

  test('wait for a slower transaction, and come soon after it', skipUnless('postgres'), async () => {
    const [slow, quick] = [await newJob(store), await newJob(store)];
    const stream = follow<Events>('jobEvents', `(projectId: "${testProject}", last: 0)`);
    await until(() => stream.batches.length > 0);
    let release = () => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    let open = () => {};
    const opened = new Promise<void>((resolve) => (open = resolve));
    const slower = commit(store, async (tx) => {
      await changeJob(tx, slow.id, (locked) => addEvent(tx, locked, { type: 'CHECKPOINT', message: 'slow 1' }));
      open();
      await held;
    });
    await opened;
    await note(quick.id, 'quick 2');
    await sleep(150);
    assert.deepEqual(eventsOf(stream.batches), [], 'nothing may be read past an open transaction');
    release();
    await slower;
    const since = performance.now();
    await until(() => eventsOf(stream.batches).length === 2, { timeoutMs: 2_000 });
    assert.ok(performance.now() - since < 1_000, 'long before the feed’s own check');
    assert.deepEqual(eventsOf(stream.batches).map(numberOf), [1, 2]);
    await stream.stop();
  });

  test('of one job keep its order when a transaction began early and came late', skipUnless('postgres'), async () => {
    const [first, second] = [await newJob(store), await newJob(store)];
    const stream = follow<Events>('jobEvents', `(projectId: "${testProject}", last: 0)`);
    await until(() => stream.batches.length > 0);
    let release = () => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    let open = () => {};
    const opened = new Promise<void>((resolve) => (open = resolve));
    const early = commit(store, async (tx) => {
      await changeJob(tx, first.id, (locked) => addEvent(tx, locked, { type: 'CHECKPOINT', message: 'first' }));
      open();
      await held;
      await changeJob(tx, second.id, (locked) => addEvent(tx, locked, { type: 'CHECKPOINT', message: 'second 2' }));
    });
    await opened;
    await note(second.id, 'second 1'); // a later transaction, and the earlier event
    release();
    await early;
    const ofSecond = () => eventsOf(stream.batches).filter(({ job }) => job.id === second.id);
    await until(() => ofSecond().length === 2);
    await stream.stop();
    assert.deepEqual(ofSecond().map(numberOf), [1, 2]);
  });
});

suite('the events of a job', () => {
  test('come from its submission to its end, and then the stream ends', async () => {
    const job = await newJob(store);
    const stream = follow<Events>('jobEvents', `(jobId: "${job.id}")`);
    await until(() => stream.batches.length > 0);
    await note(job.id, 'checkpoint 1');
    await commit(store, (tx) => cancelJob(tx, store.admin, { id: job.id, reason: null, gracePeriodSeconds: null }));
    await stream.ended;
    assert.deepEqual(
      eventsOf(stream.batches).map(({ type }) => type),
      ['SUBMITTED', 'CHECKPOINT', 'STATE_CHANGED'],
    );
    assert.equal(stream.batches.at(-1)?.done, true);
  });

  test('go on from a page’s end, and from every cursor of it', async () => {
    const job = await newJob(store);
    for (let n = 1; n <= 9; n++) await note(job.id, `checkpoint ${n}`);
    const query = `query ($id: ID!, $first: Int, $after: String, $last: Int, $before: String, $types: [JobEventType!]) {
      job(id: $id) { events(first: $first, after: $after, last: $last, before: $before, types: $types) {
        nodes { id message } edges { cursor } pageInfo { endCursor startCursor hasNextPage hasPreviousPage } } } }`;
    type Page = {
      nodes: Seen[];
      edges: { cursor: string }[];
      pageInfo: { endCursor: string; startCursor: string; hasNextPage: boolean; hasPreviousPage: boolean };
    };
    const page = async (variableValues: Record<string, unknown>): Promise<Page> => {
      const variables = { id: job.id, ...variableValues };
      const result = await graphql({
        schema,
        source: query,
        contextValue: contextFor(store.admin),
        variableValues: variables,
      });
      assert.equal(result.errors, undefined);
      return (result.data as unknown as { job: { events: Page } }).job.events;
    };
    const whole = await page({ first: 100 });
    assert.deepEqual(whole.nodes.map(numberOf), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.deepEqual([whole.pageInfo.hasNextPage, whole.pageInfo.hasPreviousPage], [false, false]);
    for (const [index, { cursor }] of whole.edges.entries()) {
      const rest = await readAll<Events>('jobEvents', `(jobId: "${job.id}", after: "${cursor}")`);
      assert.deepEqual(eventsOf(rest).map(numberOf), whole.nodes.slice(index + 1).map(numberOf));
      assert.deepEqual(
        (await page({ first: 2, after: cursor })).nodes.map(numberOf),
        whole.nodes.slice(index + 1, index + 3).map(numberOf),
      );
      assert.deepEqual(
        (await page({ last: 2, before: cursor })).nodes.map(numberOf),
        whole.nodes.slice(0, index).slice(-2).map(numberOf),
      );
    }
    const none = await page({ types: ['ALERT'] });
    assert.deepEqual(none.nodes, []);
    await note(job.id, 'checkpoint 10');
    const next = await readAll<Events>('jobEvents', `(jobId: "${job.id}", after: "${none.pageInfo.endCursor}")`);
    assert.deepEqual(eventsOf(next).map(numberOf), [10]);
    const last = await readAll<Events>('jobEvents', `(jobId: "${job.id}", last: 2, types: [SUBMITTED, CHECKPOINT])`);
    assert.deepEqual(eventsOf(last).map(numberOf), [9, 10]);
  });
});

suite('jobs that match', () => {
  const cancel = (id: string) =>
    commit(store, (tx) => cancelJob(tx, store.admin, { id, reason: null, gracePeriodSeconds: null }));
  const filter = (tag: string) => `filter: { projectIds: ["${testProject}"], tags: ["${tag}"], states: [QUEUED] }`;

  test('come first, then every change; one that matches no more is named', async () => {
    const [a, b] = [await newJob(store, { tags: ['live'] }), await newJob(store, { tags: ['live'] })];
    const gone = await newJob(store, { tags: ['live'] });
    await cancel(gone.id);
    const stream = follow<Jobs>('jobsUpdated', `(${filter('live')})`);
    await until(() => stream.batches.length > 0);
    assert.deepEqual(stream.batches[0]?.jobs.map(({ id }) => id).toSorted(), [a.id, b.id]);
    assert.deepEqual(stream.batches[0]?.removedIds, [], 'what did not match at the start is passed over');
    assert.equal(stream.batches[0]?.caughtUp, true);
    const c = await newJob(store, { tags: ['live'] });
    await until(() => stream.batches.some(({ jobs }) => jobs.some(({ id }) => id === c.id)));
    await cancel(a.id);
    await until(() => stream.batches.some(({ removedIds }) => removedIds.includes(a.id)));
    await stream.stop();
    assert.ok(stream.batches.every(({ done }) => !done));
    assert.deepEqual(
      stream.batches.flatMap(({ removedIds }) => removedIds),
      [a.id],
    );
  });

  test('are resumed from every cursor: what changed since, and what matches no more', async () => {
    const stream = follow<Jobs>('jobsUpdated', `(${filter('resumed')}, last: 100)`);
    await until(() => stream.batches.length > 0);
    const one = await newJob(store, { tags: ['resumed'] });
    await until(() => stream.batches.some(({ jobs }) => jobs.length > 0));
    await stream.stop();
    const [start, seen] = [stream.batches[0]?.endCursor, stream.batches.at(-1)?.endCursor];
    await cancel(one.id);
    const two = await newJob(store, { tags: ['resumed'] });
    for (const cursor of [start, seen]) {
      const update = (await readAll<Jobs>('jobsUpdated', `(${filter('resumed')}, after: "${cursor}")`))[0];
      assert.deepEqual([update?.jobs.map(({ id }) => id), update?.removedIds], [[two.id], [one.id]]);
    }
  });

  test('start with as many of the newest as asked', async () => {
    const jobs = [];
    for (let n = 0; n < 5; n++) jobs.push((await newJob(store, { tags: ['newest'] })).id);
    for (const last of [0, 2, 5, 100]) {
      const [update] = await readAll<Jobs>('jobsUpdated', `(${filter('newest')}, last: ${last})`);
      assert.deepEqual(
        update?.jobs.map(({ id }) => id),
        jobs.toReversed().slice(0, last),
      );
    }
  });

  test('are paged where there are many, each once', async () => {
    const ids = [];
    for (let n = 0; n < 205; n++) ids.push((await newJob(store, { tags: ['many'] })).id);
    const batches = await readAll<Jobs>('jobsUpdated', `(${filter('many')})`);
    assert.deepEqual(
      batches.map(({ jobs, caughtUp }) => [jobs.length, caughtUp]),
      [
        [100, false],
        [100, false],
        [5, true],
      ],
    );
    assert.deepEqual(batches.flatMap(({ jobs }) => jobs.map(({ id }) => id)).toSorted(), ids.toSorted());
    const middle = await readAll<Jobs>('jobsUpdated', `(${filter('many')}, after: "${batches[0]?.endCursor}")`);
    assert.equal(middle.flatMap(({ jobs }) => jobs).length, 105);
  });

  test('come at most ten times a second each, and with their last state', async () => {
    const job = await newJob(store, { tags: ['busy'] });
    const stream = follow<Jobs>('jobsUpdated', `(filter: { tags: ["busy"] })`);
    await until(() => stream.batches.length > 0);
    const since = performance.now();
    for (let n = 0; n < 100; n++) await note(job.id, `checkpoint ${n}`, 4);
    await cancel(job.id);
    await until(() => stream.batches.at(-1)?.jobs[0]?.state === 'CANCELLED');
    const allowed = (performance.now() - since) / 100 + 2;
    await stream.stop();
    assert.ok(stream.batches.length > 2 && stream.batches.length <= allowed, `${stream.batches.length} of ${allowed}`);
  });

  test('of another project are never told to a project’s token', async () => {
    const stranger = actor(['ADMIN'], 'p-other');
    const stream = follow<Jobs>('jobsUpdated', '', { by: stranger });
    const events = follow<Events>('jobEvents', '(projectId: "p-other")', { by: stranger });
    await until(() => stream.batches.length > 0 && events.batches.length > 0);
    const job = await newJob(store);
    await cancel(job.id);
    const theirs = await newJob(store, { project_id: 'p-other' });
    await until(() => stream.batches.length > 1 && events.batches.length > 1);
    await Promise.all([stream.stop(), events.stop()]);
    assert.deepEqual(new Set(stream.batches.flatMap(({ jobs }) => jobs.map(({ id }) => id))), new Set([theirs.id]));
    assert.deepEqual(
      stream.batches.flatMap(({ removedIds }) => removedIds),
      [],
    );
    assert.deepEqual(new Set(eventsOf(events.batches).map(({ job }) => job.id)), new Set([theirs.id]));
  });
});

suite('a stream over many jobs', () => {
  const refusal = async (field: string, args: string, by?: Actor) => {
    const stream = follow<Events>(field, args, { ...(by ? { by } : {}) });
    const error: unknown = await stream.ended.catch((caught: unknown) => caught);
    return error instanceof Refusal ? error.code : String(error);
  };

  test('refuses what it cannot be asked', async () => {
    const job = await newJob(store);
    const project = `projectId: "${testProject}"`;
    const cursor = (await readAll<Events>('jobEvents', `(jobId: "${job.id}")`))[0]?.endCursor;
    const forged = encodeCursor(`events:${testProject}`, [2 ** 52, '', 0]);
    const odd = encodeCursor(`events:${testProject}`, ['1', '', 0]);
    const filtered = (await readAll<Jobs>('jobsUpdated', '(filter: { model: "m" }, last: 0)'))[0]?.endCursor;
    for (const [field, args, code] of [
      ['jobEvents', '', 'BAD_USER_INPUT'],
      ['jobEvents', `(jobId: "${job.id}", ${project})`, 'BAD_USER_INPUT'],
      ['jobEvents', `(${project}, last: -1)`, 'BAD_USER_INPUT'],
      ['jobEvents', `(${project}, last: 1, after: "x")`, 'BAD_USER_INPUT'],
      ['jobEvents', `(${project}, after: "x")`, 'CURSOR_INVALID'],
      ['jobEvents', `(${project}, after: "${forged}")`, 'CURSOR_INVALID'],
      ['jobEvents', `(${project}, after: "${odd}")`, 'CURSOR_INVALID'],
      ['jobEvents', `(${project}, after: "${cursor}")`, 'CURSOR_WRONG_STREAM'],
      ['jobEvents', '(projectId: "p-missing")', 'NOT_FOUND'],
      ['jobEvents', '(jobId: "job_missing")', 'NOT_FOUND'],
      ['jobsUpdated', '(last: 101)', 'BAD_USER_INPUT'],
      ['jobsUpdated', `(after: "${filtered}")`, 'CURSOR_WRONG_STREAM'],
      ['jobsUpdated', '(filter: { projectIds: ["p-missing"] })', 'NOT_FOUND'],
    ] as const) {
      assert.equal(await refusal(field, args), code, `${field}${args}`);
    }
    const stranger = actor(['ADMIN'], 'p-other');
    assert.equal(await refusal('jobEvents', `(${project})`, stranger), 'NOT_FOUND');
    assert.equal(await refusal('jobEvents', `(jobId: "${job.id}")`, stranger), 'NOT_FOUND');
    assert.equal(await refusal('jobsUpdated', `(filter: { projectIds: ["${testProject}"] })`, stranger), 'NOT_FOUND');
    assert.equal(await refusal('jobsUpdated', '', store.runnerActor), 'PERMISSION_DENIED');
  });

  test('works on the embedded engine', async () => {
    const embedded = await openStore({ engine: 'embedded' });
    const through = new Feeds(embedded.bus);
    const options = { on: embedded, by: embedded.admin, through };
    const events = follow<Events>('jobEvents', `(projectId: "${testProject}")`, options);
    const jobs = follow<Jobs>('jobsUpdated', '', options);
    await until(() => events.batches.length > 0 && jobs.batches.length > 0);
    for (let n = 0; n < 5; n++) await newJob(embedded);
    await until(() => eventsOf(events.batches).length === 5);
    await until(() => new Set(jobs.batches.flatMap((batch) => batch.jobs.map(({ id }) => id))).size === 5);
    await Promise.all([events.stop(), jobs.stop()]);
    through.close();
    await embedded.close();
  });
});

suite('over a websocket', () => {
  let door: Door;
  before(async () => {
    door = await openDoor();
    await createProjectAt(door.port, 'p-live');
  });
  after(() => door.close());

  test('events tell who did it, and the job as it is now', async () => {
    const token = await createToken(door.port, { projectId: 'p-live', scopes: ['READ'] });
    const socket = await openSocket(door.port, { token });
    const selection = '{ type message actor { id name } job { state number } fromState toState data } endCursor done';
    const query = `subscription { jobEvents(projectId: "p-live") { events ${selection} } }`;
    const updates = 'subscription { jobsUpdated { jobs { id state } removedIds endCursor caughtUp done } }';
    socket.send({ id: 'events', type: 'subscribe', payload: { query } });
    socket.send({ id: 'jobs', type: 'subscribe', payload: { query: updates } });
    type EventRow = { type: string; actor: { name: string } | null; job: { state: string }; toState: string | null };
    const received = () =>
      socket.received
        .filter(({ id, type }) => id === 'events' && type === 'next')
        .flatMap(({ payload }) => (payload as { data: { jobEvents: { events: EventRow[] } } }).data.jobEvents.events);
    await until(() => socket.received.filter(({ type }) => type === 'next').length === 2);
    const id = await submitJob(door.port, 'p-live');
    await until(() => received().length === 1);
    assert.equal(received()[0]?.job.state, 'QUEUED');
    await dataOf(door.port, { query: `mutation { cancelJob(input: { id: "${id}" }) { __typename } }` });
    await until(() => received().length === 2);
    assert.deepEqual(
      received().map(({ type, actor: by, toState }) => [type, by?.name, toState]),
      [
        ['SUBMITTED', 'bootstrap', null],
        ['STATE_CHANGED', 'bootstrap', 'CANCELLED'],
      ],
    );
    assert.equal(received()[1]?.job.state, 'CANCELLED', 'what was read for an earlier event is not shown again');
    const states = () =>
      socket.received
        .filter(({ id: operation, type }) => operation === 'jobs' && type === 'next')
        .flatMap(({ payload }) => (payload as { data: { jobsUpdated: Jobs } }).data.jobsUpdated.jobs)
        .map(({ state }) => state);
    await until(() => states().at(-1) === 'CANCELLED');
    await socket.close();
    await until(() => door.gateway.feeds.size === 0);
  });
});
