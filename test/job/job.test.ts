// Jobs: lists in pages, and the state machine. On real Postgres where there is one.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { sql } from 'drizzle-orm';
import { cancelJob } from '../../src/attempt/cancel.ts';
import { getJob, type Job } from '../../src/job/job.ts';
import { countJobs, jobPosition, type JobOrderField, listJobs } from '../../src/job/list.ts';
import { isTerminal, jobStates, requireMove } from '../../src/job/state.ts';
import { event } from '../../src/event/table.ts';
import { commit } from '../../src/live/commit.ts';
import { actor, newJob, openStore, type TestStore } from '../support/store.ts';

let store: TestStore;
before(async () => void (store = await openStore()));
after(() => store.close());

suite('lists of jobs', () => {
  const mine = { tags: ['listed'] };
  const made: Job[] = [];
  before(async () => {
    for (let n = 0; n < 25; n++) {
      made.push(
        await newJob(store, { tags: ['listed'], priority: n % 3, name: `job ${n}`, model: n % 2 ? 'odd' : 'even' }),
      );
    }
  });

  for (const field of ['CREATED_AT', 'UPDATED_AT', 'PRIORITY'] as JobOrderField[]) {
    for (const descending of [true, false]) {
      test(`in pages hold every job once, by ${field} ${descending ? 'down' : 'up'}, from either end`, async () => {
        const list = (limit: number, more: object) =>
          listJobs(store.database.db, store.admin, {
            filter: mine,
            field,
            descending,
            limit,
            backward: false,
            ...more,
          });
        const all = await list(100, {});
        assert.equal(all.length, 25);
        for (const backward of [false, true]) {
          const seen: string[] = [];
          let cursor: unknown[] | undefined;
          for (;;) {
            const rows = await list(7, backward ? { backward, before: cursor } : { after: cursor });
            const page = rows.length > 7 ? (backward ? rows.slice(1) : rows.slice(0, 7)) : rows;
            if (backward) seen.unshift(...page.map(({ id }) => id));
            else seen.push(...page.map(({ id }) => id));
            const edge = backward ? page[0] : page.at(-1);
            if (rows.length <= 7 || !edge) break;
            cursor = jobPosition(edge, field);
          }
          assert.deepEqual(
            seen,
            all.map(({ id }) => id),
          );
        }
      });
    }
  }

  test('are filtered by state, model, tags, time, search and sender', async () => {
    const count = (filter: object) => countJobs(store.database.db, store.admin, { ...mine, ...filter });
    assert.equal(await count({}), 25);
    assert.equal(await count({ model: 'odd' }), 12);
    assert.equal(await count({ tags: ['listed', 'x'] }), 0);
    assert.equal(await count({ states: ['RUNNING'] }), 0);
    assert.equal(await count({ states: [] }), 0);
    assert.equal(await count({ search: 'JOB 1' }), 11);
    assert.equal(await count({ search: '%' }), 0, 'a search is literal');
    assert.equal(await count({ search: 'listed' }), 25);
    assert.equal(await count({ createdAfter: new Date(Date.now() + 60_000) }), 0);
    assert.equal(await count({ createdBefore: made[3]?.createdAt }), 3);
    assert.equal(await count({ submittedByMe: true }), 25);
    assert.equal(await count({ projectIds: ['p-other'] }), 0);
  });

  test('show nothing of other projects', async () => {
    const stranger = actor(['ADMIN'], 'p-other');
    const options = { filter: {}, field: 'CREATED_AT', descending: true, limit: 10, backward: false } as const;
    assert.deepEqual(await listJobs(store.database.db, stranger, options), []);
    assert.deepEqual(await listJobs(store.database.db, store.runnerActor, options), []);
    assert.equal(await getJob(store.database.db, stranger, made[0]?.id ?? ''), null);
    assert.equal(await getJob(store.database.db, store.admin, 'job_\0'), null);
  });
});

suite('the state machine', () => {
  test('lets nothing follow a terminal state', () => {
    for (const from of jobStates) {
      for (const to of jobStates) if (isTerminal(from)) assert.throws(() => requireMove(from, to));
    }
  });

  test('is kept by the database too', async () => {
    const { id } = await newJob(store);
    const set = (change: string) => store.database.db.execute(sql.raw(`update job set ${change} where id = '${id}'`));
    await assert.rejects(set(`state = 'SUCCEEDED'`), 'terminal without an end');
    await assert.rejects(set(`finished_at = now()`), 'an end without being terminal');
    await assert.rejects(set(`state = 'PAUSED'`), 'no such state');
  });

  test('leads a queued job that is cancelled to its end at once, with an event', async () => {
    const { id } = await newJob(store);
    const cancel = (reason: string | null) =>
      commit(store, (tx) => cancelJob(tx, store.admin, { id, reason, gracePeriodSeconds: null }));
    const cancelled = await cancel('not needed');
    assert.equal(cancelled.state, 'CANCELLED');
    assert.match(cancelled.reasonMessage ?? '', /not needed/);
    assert.deepEqual(await cancel(null), cancelled, 'cancelling again changes nothing');
    const events = await store.database.db
      .select()
      .from(event)
      .where(sql`${event.jobId} = ${id}`)
      .orderBy(event.seq);
    assert.deepEqual(
      events.map(({ seq, type, toState }) => [seq, type, toState]),
      [
        [1, 'SUBMITTED', null],
        [2, 'STATE_CHANGED', 'CANCELLED'],
      ],
    );
  });
});
