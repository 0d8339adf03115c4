// Schedules on a real Postgres with the loops of two gateways: every due time is decided once, and what was decided equals
// the table of an oracle that knows neither croner nor SQL.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { sql } from 'drizzle-orm';
import { memoryBus } from '../../src/bus/memory.ts';
import { openDatabase } from '../../src/database/database.ts';
import { ensureDefaults } from '../../src/defaults/defaults.ts';
import { changeJob, type Job, moveJob } from '../../src/job/job.ts';
import { job } from '../../src/job/table.ts';
import { commit, type Store } from '../../src/live/commit.ts';
import { setPolicy } from '../../src/policy/policy.ts';
import { createProject } from '../../src/project/project.ts';
import { decideDue, runDueSchedules } from '../../src/schedule/due.ts';
import { listRuns } from '../../src/schedule/run.ts';
import {
  createSchedule,
  deleteSchedule,
  loadSchedules,
  type NewSchedule,
  type Schedule,
  triggerSchedule,
  updateSchedule,
} from '../../src/schedule/schedule.ts';
import { dueByOracle } from '../support/due-oracle.ts';
import { expectNoLeaks } from '../support/leaks.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { actor } from '../support/store.ts';

const project = 'p-due';
const admin = actor(['ADMIN']);
const minute = 60_000;

let server: PostgresServer;
let one: Store;
let two: Store;

before(async () => {
  server = await startPostgres();
  const { url } = await createDatabase(server);
  const open = async () => ({ database: await openDatabase({ url, dataDir: '', poolSize: 4 }), bus: memoryBus() });
  one = await open();
  two = await open();
  await commit(one, async (tx) => {
    await ensureDefaults(tx);
    await createProject(tx, admin, { id: project, command: ['true'] });
  });
});
after(async () => {
  for (const store of [one, two]) {
    await store.bus.close();
    await store.database.close();
  }
  await server.stop();
  await expectNoLeaks();
});

async function create(now: string, input: Partial<NewSchedule> & { cron: string }): Promise<Schedule> {
  const defaults = { timezone: 'UTC', name: null, onOverlap: 'ALLOW' as const, startingDeadlineSeconds: 3600 };
  const spec = { project_id: project, model: 'm', dataset: 'd' };
  const wanted = { ...defaults, spec, issues: [], idempotencyKey: null, ...input };
  return (await commit(one, (tx) => createSchedule(tx, admin, wanted, new Date(now)))).schedule;
}

const remove = (schedule: Schedule) => commit(one, (tx) => deleteSchedule(tx, admin, schedule.id));

/** The loops of both gateways at once, until neither finds anything. */
async function runLoops(now: string | number): Promise<void> {
  const loop = async (store: Store) => {
    while (await runDueSchedules(store, { now: new Date(now) }));
  };
  await Promise.all([loop(one), loop(two)]);
}

async function jobsOf(schedule: Schedule): Promise<Job[]> {
  const rows = await one.database.db
    .select()
    .from(job)
    .where(sql`${job.scheduleId} = ${schedule.id}`)
    .orderBy(job.id);
  return rows;
}

/** What is on record, oldest first: `[first due time, last due time, started or the code of the skip]`. */
async function recordOf(schedule: Schedule): Promise<string[][]> {
  const rows = await listRuns(one.database.db, schedule.id, { limit: 10_000, backward: false });
  return rows
    .toReversed()
    .map(({ dueAt, lastDueAt, reasonCode }) => [
      dueAt.toISOString().slice(0, 16),
      lastDueAt.toISOString().slice(0, 16),
      reasonCode ?? 'STARTED',
    ]);
}

async function reload(schedule: Schedule): Promise<Schedule> {
  const found = (await loadSchedules(one.database.db, [schedule.id])).get(schedule.id);
  assert.ok(found);
  return found;
}

/** Ends a job as its runner would. */
async function finish(id: string): Promise<void> {
  await commit(one, (tx) =>
    changeJob(tx, id, async (locked) => {
      for (const to of ['STARTING', 'RUNNING', 'SUCCEEDED'] as const) {
        await moveJob(tx, locked, to, { reason: null, at: new Date() });
      }
    }),
  );
}

suite('Two gateways', () => {
  const changes: [string, string][] = [
    ['America/New_York', '2026-03-08T04:00Z'],
    ['Europe/Berlin', '2026-03-28T22:00Z'],
    ['Australia/Lord_Howe', '2026-04-04T12:00Z'],
    ['Australia/Lord_Howe', '2026-10-03T12:00Z'],
    ['Europe/Berlin', '2026-10-24T22:00Z'],
    ['America/New_York', '2026-11-01T03:00Z'],
  ];
  const expressions = ['0 * * * *', '30 2 * * *', '30 1 * * *', '0,30 2 * * *', '*/30 1-2 * * *', '15 1-3 * * *'];
  /** Minutes after the start at which the loops look: an hour and more away, and a clock that goes back and forth. */
  const looks = [30, 60, 90, 75, 40, 95, 120, 150, 215, 240, 210, 180, 270, 300, 350, 480, 510];

  for (const [timezone, from] of changes) {
    test(`start each due time once over the change of the clocks in ${timezone} from ${from}`, async () => {
      const start = Date.parse(from);
      const schedules = await Promise.all(
        expressions.map((cron) => create(from, { cron, timezone, startingDeadlineSeconds: 3900 })),
      );
      for (const look of looks) await runLoops(start + look * minute);

      for (const [index, schedule] of schedules.entries()) {
        const cron = expressions[index] ?? '';
        const due = dueByOracle(cron, timezone, new Date(start + minute), new Date(start + 510 * minute + minute));
        const first = (time: number) => looks.find((look) => start + look * minute >= time) ?? NaN;
        const isStarted = (time: string) =>
          start + first(Date.parse(time)) * minute - Date.parse(time) <= schedule.startingDeadlineSeconds * 1000;
        const expected = due.map((time) => [time, isStarted(time) ? 'STARTED' : 'MISSED']);
        const record = await listRuns(one.database.db, schedule.id, { limit: 1000, backward: false });
        const found = due.flatMap((time) => {
          const at = new Date(time);
          return record
            .filter(({ dueAt, lastDueAt }) => at >= dueAt && at <= lastDueAt)
            .map(({ reasonCode }) => [time, reasonCode ?? 'STARTED']);
        });
        assert.deepEqual(found, expected, cron);
        assert.equal(
          record.every(({ dueAt, lastDueAt }) => [dueAt, lastDueAt].every((at) => due.includes(at.toISOString()))),
          true,
          `${cron}: nothing else is on record`,
        );
        const started = (await jobsOf(schedule)).map(({ dueAt }) => dueAt?.toISOString()).sort();
        assert.deepEqual(
          started,
          expected.filter(([, what]) => what === 'STARTED').map(([time]) => time),
          cron,
        );
      }
      await Promise.all(schedules.map(remove));
    });
  }

  test('make one record of what a year without a gateway missed, and start what is not too late', async () => {
    const schedule = await create('2025-01-01T00:00Z', { cron: '* * * * *', startingDeadlineSeconds: 120 });
    await runLoops('2026-01-01T00:00:30Z');
    assert.deepEqual(await recordOf(schedule), [
      ['2025-01-01T00:01', '2025-12-31T23:58', 'MISSED'],
      ['2025-12-31T23:59', '2025-12-31T23:59', 'STARTED'],
      ['2026-01-01T00:00', '2026-01-01T00:00', 'STARTED'],
    ]);
    assert.equal((await jobsOf(schedule)).length, 2);
    await remove(schedule);
    assert.equal((await jobsOf(schedule)).length, 2);
  });

  test('go on with the others when a schedule fails with a bug', async () => {
    const broken = await create('2026-01-01T00:00Z', { cron: '@hourly' });
    const fine = await create('2026-01-01T00:30Z', { cron: '@hourly' });
    await one.database.db.execute(sql`update schedule set cron = 'broken' where id = ${broken.id}`);
    const reported: string[] = [];
    const held = new Map<string, number>();
    const options = {
      now: new Date('2026-01-01T01:00:01Z'),
      held,
      report: (_: unknown, id: string) => reported.push(id),
    };
    assert.equal(await runDueSchedules(one, options), true);
    assert.equal(await runDueSchedules(one, options), false);
    assert.deepEqual(reported, [broken.id]);
    assert.equal((await jobsOf(fine)).length, 1);
    assert.equal(await runDueSchedules(one, { ...options, now: new Date('2026-01-01T01:05Z') }), false);
    assert.equal(reported.length, 2, 'it is tried again after a while');
    await Promise.all([broken, fine].map(remove));
  });

  test('leave nothing of a step that dies, and the next step does it', async () => {
    const schedule = await create('2026-01-01T00:00Z', { cron: '@hourly' });
    const now = new Date('2026-01-01T01:00:01Z');
    const dying = commit(one, async (tx) => {
      assert.equal(await decideDue(tx, schedule.id, { now, number: 1_000_001 }), 'STARTED');
      // The row is locked: the other gateway neither waits nor starts it too.
      assert.equal(await commit(two, (other) => decideDue(other, schedule.id, { now, number: 1_000_002 })), null);
      await two.database.db.execute(
        sql`select pg_terminate_backend(pid) from pg_stat_activity
          where state = 'idle in transaction' and datname = current_database()`,
      );
      await tx.execute(sql`select 1`);
    });
    await assert.rejects(dying);
    assert.deepEqual([await recordOf(schedule), (await jobsOf(schedule)).length], [[], 0]);
    await runLoops(now.toISOString());
    assert.deepEqual(await recordOf(schedule), [['2026-01-01T01:00', '2026-01-01T01:00', 'STARTED']]);
    assert.equal((await jobsOf(schedule)).length, 1);
    await remove(schedule);
  });
});

suite('A schedule whose previous job still runs', () => {
  test('and that forbids overlaps skips with the reason, until the job has ended', async () => {
    const schedule = await create('2026-01-01T00:00Z', { cron: '0 * * * *', onOverlap: 'FORBID' });
    for (const at of ['01', '02', '03']) await runLoops(`2026-01-01T${at}:00:01Z`);
    const [first] = await jobsOf(schedule);
    assert.ok(first);
    await finish(first.id);
    await runLoops('2026-01-01T04:00:01Z');
    assert.deepEqual(await recordOf(schedule), [
      ['2026-01-01T01:00', '2026-01-01T01:00', 'STARTED'],
      ['2026-01-01T02:00', '2026-01-01T03:00', 'PREVIOUS_RUNNING'],
      ['2026-01-01T04:00', '2026-01-01T04:00', 'STARTED'],
    ]);
    const [, skip] = await listRuns(one.database.db, schedule.id, { limit: 5, backward: false });
    assert.equal(skip?.reasonMessage, `Job ${project}/${first.number} of the schedule had not ended.`);
    await remove(schedule);
  });

  test('and that replaces cancels it for that reason and starts another', async () => {
    const schedule = await create('2026-01-01T00:00Z', { cron: '0 * * * *', onOverlap: 'REPLACE' });
    await runLoops('2026-01-01T01:00:01Z');
    const [running] = await jobsOf(schedule);
    assert.ok(running);
    await commit(one, (tx) =>
      changeJob(tx, running.id, async (locked) => {
        for (const to of ['STARTING', 'RUNNING'] as const)
          await moveJob(tx, locked, to, { reason: null, at: new Date() });
      }),
    );
    for (const at of ['02', '03']) await runLoops(`2026-01-01T${at}:00:01Z`);
    const [first, second, third] = await jobsOf(schedule);
    assert.deepEqual(
      [first, second, third].map((row) => [row?.state, row?.reasonCode]),
      [
        ['CANCELLING', 'REPLACED_BY_SCHEDULE'],
        ['CANCELLED', 'REPLACED_BY_SCHEDULE'],
        ['QUEUED', null],
      ],
    );
    assert.equal(first?.reasonMessage, `Replaced by job ${project}/${second?.number}.`);
    await remove(schedule);
  });
});

suite('A schedule', () => {
  test('submits as itself, with the defaults of its creation and the policy of the due time', async () => {
    const spec = { project_id: project, model: 'm', dataset: 'd', hyperparams: { epochs: 3 } };
    const schedule = await create('2026-01-01T00:00Z', { cron: '@hourly', name: 'hourly', spec });
    assert.equal(schedule.defaultsVersion, 'v2.1');
    await one.database.db.execute(sql`
      insert into defaults_version (version, documented, platform, hash)
      select 'v9', documented || '{"hyperparams.batch_size": 99}', platform, 'x' from defaults_version where version = 'v2.1'`);
    await one.database.db.execute(sql`update defaults_current set version = 'v9'`);
    const rules = [{ path: 'hyperparams.lr', default: 0.5 }];
    await commit(one, (tx) => setPolicy(tx, admin, { projectId: project, rules, ifRevision: null } as never));
    await runLoops('2026-01-01T01:00:01Z');
    const [row] = await jobsOf(schedule);
    assert.ok(row);
    assert.deepEqual([row.submittedBy, row.defaultsVersion, row.policyRevision], [schedule.id, 'v2.1', 1]);
    assert.equal(row.dueAt?.toISOString(), '2026-01-01T01:00:00.000Z');
    const value = (path: string) => row.resolved.find((found) => found.path === path);
    assert.deepEqual([value('hyperparams.epochs')?.source, value('hyperparams.epochs')?.value], ['SCHEDULE', 3]);
    assert.deepEqual([value('hyperparams.lr')?.source, value('hyperparams.batch_size')?.value], ['POLICY', 32]);
    const [event] = await one.database.db.execute(sql`select actor_id, message from event where job_id = ${row.id}`);
    assert.deepEqual(event, { actor_id: schedule.id, message: 'Submitted by schedule hourly with defaults v2.1.' });

    const newer = { ...spec, hyperparams: { epochs: 4 } };
    const change = (next: Record<string, unknown>) =>
      commit(one, (tx) => updateSchedule(tx, admin, { id: schedule.id, spec: next }, new Date('2026-01-01T01:30Z')));
    assert.equal((await change(newer)).defaultsVersion, 'v2.1');
    assert.equal((await change({ ...newer, defaults_version: 'v9' })).defaultsVersion, 'v9');
    await one.database.db.execute(sql`update defaults_current set version = 'v2.1'`);
    await remove(schedule);
  });

  test('that the policy forbids at a due time skips it with the violation, and goes on', async () => {
    const spec = { project_id: project, model: 'm', dataset: 'd', hyperparams: { epochs: 30 } };
    const schedule = await create('2026-01-01T00:00Z', { cron: '@hourly', spec });
    const set = (rules: object[]) =>
      commit(one, (tx) => setPolicy(tx, admin, { projectId: project, rules, ifRevision: null } as never));
    await set([{ path: 'hyperparams.epochs', max: 20 }]);
    for (const at of ['01', '02']) await runLoops(`2026-01-01T${at}:00:01Z`);
    await set([]);
    await runLoops('2026-01-01T03:00:01Z');
    assert.deepEqual(await recordOf(schedule), [
      ['2026-01-01T01:00', '2026-01-01T02:00', 'POLICY_VIOLATION'],
      ['2026-01-01T03:00', '2026-01-01T03:00', 'STARTED'],
    ]);
    const [, skip] = await listRuns(one.database.db, schedule.id, { limit: 5, backward: false });
    assert.equal(skip?.reasonMessage, "epochs 30 is above the project's maximum 20.");
    await remove(schedule);
  });

  test('of an archived project skips, and goes on when it is back', async () => {
    const schedule = await create('2026-01-01T00:00Z', { cron: '@hourly' });
    await one.database.db.execute(sql`update project set archived_at = now()`);
    await runLoops('2026-01-01T01:00:01Z');
    await one.database.db.execute(sql`update project set archived_at = null`);
    await runLoops('2026-01-01T02:00:01Z');
    assert.deepEqual(
      (await recordOf(schedule)).map(([, , what]) => what),
      ['INVALID_STATE', 'STARTED'],
    );
    await remove(schedule);
  });

  test('that is paused starts nothing; what it left out is on record once it is resumed', async () => {
    const schedule = await create('2026-01-01T00:00Z', { cron: '0 * * * *' });
    const pause = (paused: boolean, now: string) =>
      commit(one, (tx) => updateSchedule(tx, admin, { id: schedule.id, paused }, new Date(now)));
    await pause(true, '2026-01-01T00:30Z');
    await pause(true, '2026-01-01T01:30Z');
    await runLoops('2026-01-01T05:00:01Z');
    assert.deepEqual(await recordOf(schedule), []);
    const resumed = await pause(false, '2026-01-01T05:30Z');
    assert.deepEqual([resumed.pausedAt, resumed.nextDueAt?.toISOString()], [null, '2026-01-01T06:00:00.000Z']);
    await runLoops('2026-01-01T06:00:00Z');
    assert.deepEqual(await recordOf(schedule), [
      ['2026-01-01T01:00', '2026-01-01T05:00', 'PAUSED'],
      ['2026-01-01T06:00', '2026-01-01T06:00', 'STARTED'],
    ]);
    await remove(schedule);
  });

  test('that is changed is due by its new expression from then on, and never twice', async () => {
    const schedule = await create('2026-01-01T00:00Z', { cron: '0 * * * *' });
    await runLoops('2026-01-01T01:00:01Z');
    const change = (cron: string, now: string) =>
      commit(one, (tx) => updateSchedule(tx, admin, { id: schedule.id, cron }, new Date(now)));
    await change('*/30 * * * *', '2026-01-01T02:10Z'); // 02:00 was not decided yet
    await change('*/15 * * * *', '2026-01-01T00:50Z'); // the clock went back
    await runLoops('2026-01-01T01:20Z');
    assert.deepEqual(await recordOf(schedule), [
      ['2026-01-01T01:00', '2026-01-01T01:00', 'STARTED'],
      ['2026-01-01T01:15', '2026-01-01T01:15', 'STARTED'],
      ['2026-01-01T02:00', '2026-01-01T02:00', 'CHANGED'],
    ]);
    assert.equal((await jobsOf(schedule)).length, 2);
    await remove(schedule);
  });

  test('is triggered once under a key, whatever runs, and is no due time', async () => {
    const schedule = await create('2026-01-01T00:00Z', { cron: '@hourly', onOverlap: 'FORBID' });
    await runLoops('2026-01-01T01:00:01Z');
    const trigger = () => triggerSchedule(one, admin, { id: schedule.id, idempotencyKey: 'again' });
    const first = await trigger();
    const second = await trigger();
    assert.deepEqual([first.replayed, second.replayed, second.job.id], [false, true, first.job.id]);
    assert.deepEqual(
      [first.job.scheduleId, first.job.dueAt, first.job.submittedBy],
      [schedule.id, null, admin.tokenId],
    );
    assert.equal((await recordOf(schedule)).length, 1);
    assert.equal((await reload(schedule)).nextDueAt?.toISOString(), '2026-01-01T02:00:00.000Z');
    await remove(schedule);
  });
});
