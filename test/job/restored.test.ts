// A dump that was restored into another server, which counts its transactions from lower on: streams over many jobs go on.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { sql } from 'drizzle-orm';
import { jobEventTypes, projectBeforeLast, readProjectEvents } from '../../src/event/event.ts';
import { addEvent, changeJob } from '../../src/job/job.ts';
import { renumberRestored } from '../../src/job/restored.ts';
import { readHorizon } from '../../src/live/changes.ts';
import { commit } from '../../src/live/commit.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { newJob, openStore, testProject, type TestStore } from '../support/store.ts';

for (const engine of ['embedded', undefined] as const) {
  suite(`a dump of a server that counted further, ${engine ?? 'on a server where there is one'}`, () => {
    let store: TestStore;
    before(async () => void (store = await openStore(engine ? { engine } : {})));
    after(async () => {
      await store.close();
      await expectNoLeaks();
    });

    const note = (id: string, message: string) =>
      commit(store, (tx) => changeJob(tx, id, (locked) => addEvent(tx, locked, { type: 'CHECKPOINT', message })));
    const read = async () => {
      const { db } = store.database;
      const horizon = await readHorizon(db);
      const page = { after: [0, '', 0] as const, until: null, horizon, limit: 100 };
      return readProjectEvents(db, testProject, page);
    };

    test('is read from its beginning, each job in order, and what comes next follows', async () => {
      const [one, two] = [await newJob(store), await newJob(store)];
      for (let n = 1; n <= 5; n++) await note(n % 2 ? one.id : two.id, `note ${n}`);
      const whole = (await read()).events.map(({ id }) => id);
      assert.equal(whole.length, 7);
      const ahead = sql`set changed = (changed::text::bigint + 4000000000)::text::xid8`;
      await store.database.db.execute(sql`update job ${ahead}`);
      await store.database.db.execute(sql`update event ${ahead} where job_id is not null`);
      assert.deepEqual((await read()).events, [], 'what nobody would ever see');

      await commit(store, renumberRestored);
      await note(one.id, 'after');
      const { events, pending } = await read();
      assert.equal(pending, false);
      assert.deepEqual(new Set(events.slice(0, -1).map(({ id }) => id)), new Set(whole));
      assert.equal(events.at(-1)?.message, 'after');
      for (const { id } of [one, two]) {
        const numbers = events.filter(({ jobId }) => jobId === id).map(({ seq }) => seq);
        assert.deepEqual(
          numbers,
          numbers.toSorted((a, b) => a - b),
        );
      }
      const horizon = await readHorizon(store.database.db);
      const last = { types: jobEventTypes, last: 1, horizon };
      assert.ok((await projectBeforeLast(store.database.db, testProject, last))[0] > 0);
    });

    test('changes nothing where all stands well', async () => {
      await note((await newJob(store)).id, 'well');
      const rows = () => store.database.db.execute(sql`select id, changed::text from job order by id`);
      const before = await rows();
      await commit(store, renumberRestored);
      assert.deepEqual(await rows(), before);
    });
  });
}
