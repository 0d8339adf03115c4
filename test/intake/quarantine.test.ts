// What cannot be stored stops nobody: the record that the database refuses is set aside alone, and nothing is set aside while
// the gateway cannot store even what is known to be good. The database refuses for real: triggers raise for marked rows.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { and, asc, eq, sql } from 'drizzle-orm';
import { loadAttempts } from '../../src/attempt/attempt.ts';
import { claimJob } from '../../src/attempt/claim.ts';
import { channels, uplinkShard } from '../../src/bus/bus.ts';
import { unpackBytes } from '../../src/database/columns.ts';
import { event } from '../../src/event/table.ts';
import { type Consumer, startConsumer } from '../../src/intake/consumer.ts';
import { runControl } from '../../src/intake/control.ts';
import { maxRefusedOfJob } from '../../src/intake/refuse.ts';
import { refusedRecord } from '../../src/intake/table.ts';
import { readJob } from '../../src/job/job.ts';
import { commit } from '../../src/live/commit.ts';
import { readLog } from '../../src/log/read.ts';
import { listMetrics } from '../../src/metric/metric.ts';
import type { Acknowledgement, Assignment } from '../../src/protocol/control.ts';
import { encodeBatch, nextLinesCrc } from '../../src/protocol/record.ts';
import type { Runner } from '../../src/runner/runner.ts';
import { newJob, newRunner, openStore, type TestStore } from '../support/store.ts';
import { until } from '../support/until.ts';

const leaseSeconds = 30;
const pauses = { firstMs: 20, longestMs: 100 };
const patience = { timeoutMs: 30_000, everyMs: 20 };

const line = (text: string) => ({ type: 'line', time: Date.now(), stream: 'STDOUT', text });
const points = (values: object) => ({ type: 'points', time: Date.now(), step: null, epoch: null, values });
const started = () => ({ type: 'started', time: Date.now() });
const finished = (lines: string[]) => ({
  type: 'finished',
  time: Date.now(),
  outcome: 'EXITED',
  exitCode: 0,
  signal: null,
  message: '',
  lines: lines.length,
  linesCrc: lines.reduce(nextLinesCrc, 0),
});

for (const engine of ['any', 'embedded'] as const) {
  suite(engine === 'any' ? 'on a server' : 'on the embedded engine', () => {
    let store: TestStore;
    let runner: Runner;
    let consumer: Consumer | undefined;
    let reports: unknown[] = [];
    let claims = 0;
    before(async () => {
      store = await openStore(engine === 'embedded' ? { engine } : {});
      runner = await newRunner(store, 'many', 64);
    });
    after(async () => {
      await consumer?.stop();
      await store.close();
    });

    const execute = (text: string) => store.database.db.execute(sql.raw(text));
    async function restart(): Promise<Consumer> {
      await consumer?.stop();
      reports = [];
      const options = { leaseSeconds, maxMetricNames: Infinity, quarantinePauses: pauses };
      return (consumer = startConsumer(store, { ...options, report: (error) => reports.push(error) }));
    }
    async function claim(): Promise<Assignment> {
      await newJob(store, { priority: 100 });
      const request = {
        runnerId: runner.id,
        freeGpus: runner.gpus.map(({ index }) => index),
        requestId: `r${claims++}`,
        waitSeconds: 0,
      };
      const assignment = await commit(store, (tx) => claimJob(tx, store.runnerActor, request, leaseSeconds));
      assert.ok(assignment);
      return assignment;
    }
    async function send({ attemptId, leaseToken }: Assignment, first: number, records: unknown[]): Promise<void> {
      const batch = encodeBatch({ version: 1, attemptId, leaseToken, first, records });
      await store.bus.append(uplinkShard(attemptId), batch);
    }
    const markOf = async ({ attemptId }: Assignment) =>
      (await loadAttempts(store.database.db, [attemptId])).get(attemptId)?.mark;
    const reached = (to: Assignment, mark: number) =>
      until(async () => (await markOf(to)) === mark, { ...patience, what: `mark ${mark}` });
    async function logOf({ job }: Assignment) {
      const { line: head } = await readJob(store.database.db, job.id);
      const limits = { after: 0, head, maxLines: 1e6, maxBytes: Infinity };
      const { lines, gaps } = await readLog(store.database.db, job.id, limits);
      return { lines: lines.map(({ seq, text }) => `${seq} ${text}`), gaps };
    }
    const keptOf = ({ attemptId }: Assignment) =>
      store.database.db
        .select()
        .from(refusedRecord)
        .where(eq(refusedRecord.attemptId, attemptId))
        .orderBy(asc(refusedRecord.number));
    const alertsOf = ({ job }: Assignment) =>
      store.database.db
        .select()
        .from(event)
        .where(and(eq(event.jobId, job.id), eq(event.type, 'ALERT')));
    const jobOf = async ({ job }: Assignment) => (await readJob(store.database.db, job.id)).job;

    /** Makes the table raise for rows for which the condition holds, until the returned function is called. */
    async function refuseRows(table: string, condition: string, code = '22P02'): Promise<() => Promise<void>> {
      const name = `refuse_${table}`;
      await execute(
        `create or replace function ${name}() returns trigger language plpgsql as $$ begin
           if ${condition} then raise exception 'the test refuses it' using errcode = '${code}'; end if;
           return new; end $$`,
      );
      await execute(
        `create trigger ${name} before insert or update on ${table} for each row execute function ${name}()`,
      );
      return async () => void (await execute(`drop trigger ${name} on ${table}`));
    }
    const marked = `position(convert_to('POISON', 'UTF8') in new.body) > 0`;

    test('a record that the database refuses is set aside alone, and stops nobody', async () => {
      const repair = await refuseRows('log_chunk', marked);
      const { counts } = await restart();
      const [bad, good] = [await claim(), await claim()];
      const heard: Acknowledgement[] = [];
      const stop = await store.bus.subscribe(channels.runner(runner.id), (text) =>
        heard.push(JSON.parse(text) as Acknowledgement),
      );
      const texts = ['a', 'b POISON', 'c', 'd POISON', 'e'];
      await send(bad, 1, [started(), ...texts.map(line), points({ loss: 1 })]);
      await send(good, 1, [started(), line('x'), line('y')]);
      await reached(good, 3);
      await reached(bad, 7);
      await send(bad, 8, [line('f'), finished([...texts, 'f'])]);
      await reached(bad, 9);
      await stop();
      await repair();

      assert.deepEqual((await logOf(good)).lines, ['1 x', '2 y']);
      const { lines, gaps } = await logOf(bad);
      assert.deepEqual(lines, ['1 a', '3 c', '5 e', '6 f']);
      assert.deepEqual(gaps, [
        { fromSeq: 2, toSeq: 2, reason: 'REFUSED' },
        { fromSeq: 4, toSeq: 4, reason: 'REFUSED' },
      ]);
      const kept = await keptOf(bad);
      assert.deepEqual(
        kept.map(({ number, seq, record }) => [
          number,
          seq,
          (JSON.parse(unpackBytes(record)) as { text: string }).text,
        ]),
        [
          [3, 2, 'b POISON'],
          [5, 4, 'd POISON'],
        ],
      );
      assert.match(kept[0]?.reason ?? '', /SQLSTATE 22P02/);
      assert.equal((await jobOf(bad)).state, 'SUCCEEDED');
      const alerts = await alertsOf(bad);
      assert.deepEqual(
        alerts.map(({ data }) => (data as { refused: number }).refused),
        [1, 2],
        'and none of a checksum that differs',
      );
      assert.equal(counts.refused, 2);
      assert.equal(reports.length, 1, 'the first of the batch is reported');
      const ends = heard.filter(({ attemptId }) => attemptId === bad.attemptId).map(({ committed }) => committed);
      assert.deepEqual(ends.slice(-2), [7, 9], 'the runner is told once the whole batch is decided');
    });

    test('what was set aside is tried again when a gateway starts, and takes its place', async () => {
      const repairs = [await refuseRows('log_chunk', marked), await refuseRows('metric', `new.name = 'poison/loss'`)];
      await restart();
      const to = await claim();
      await send(to, 1, [line('a'), line('POISON'), points({ 'poison/loss': 1 }), points({ good: 1 }), line('b')]);
      await reached(to, 5);
      assert.deepEqual((await logOf(to)).lines, ['1 a', '4 b']);
      await restart();
      assert.equal((await keptOf(to)).length, 2, 'it is refused again');
      for (const repair of repairs) await repair();
      await restart();
      await until(async () => (await keptOf(to)).length === 0, patience);
      const { lines, gaps } = await logOf(to);
      assert.deepEqual(lines, ['1 a', '2 POISON', '3 What the database refused here was stored later.', '4 b']);
      assert.deepEqual(gaps, []);
      const names = (await listMetrics(store.database.db, to.job.id, null)).map(({ name, count }) => [name, count]);
      assert.deepEqual(names, [
        ['good', 1],
        ['poison/loss', 1],
      ]);
    });

    test('a start or an end that is refused ends the attempt as FAILED, and no job is stuck', async () => {
      await restart();
      const [early, late] = [await claim(), await claim()];
      const repairStart = await refuseRows('attempt', `new.id = '${early.attemptId}' and new.state = 'RUNNING'`);
      await send(early, 1, [started(), line('a')]);
      await until(async () => (await jobOf(early)).finishedAt !== null, patience);
      await repairStart();
      const repairEnd = await refuseRows('job', `new.id = '${late.job.id}' and new.state = 'SUCCEEDED'`);
      await send(late, 1, [started(), line('a'), finished(['a'])]);
      await until(async () => (await jobOf(late)).finishedAt !== null, patience);
      await repairEnd();
      for (const to of [early, late]) {
        const { state, reasonCode, reasonMessage } = await jobOf(to);
        assert.deepEqual([state, reasonCode], ['FAILED', 'RECORD_REFUSED']);
        assert.match(reasonMessage ?? '', to === early ? /of its start could not/ : /of its end could not/);
        assert.equal((await keptOf(to)).length, 1);
      }
    });

    test('while even good records cannot be stored nothing is set aside or acknowledged; repaired, all is stored', async () => {
      const sound = await restart();
      const [one, other] = [await claim(), await claim()];
      const repair = await refuseRows('log_chunk', 'true');
      await send(one, 1, [line('a'), line('b')]);
      await until(() => sound.broken !== null, patience);
      await send(other, 1, [line('x')]);
      assert.match(sound.broken ?? '', /SQLSTATE 22P02/);
      assert.deepEqual([await markOf(one), await markOf(other)], [0, 0]);
      assert.deepEqual([...(await keptOf(one)), ...(await keptOf(other))], []);
      assert.equal(sound.isWell(), false);
      await repair();
      await reached(one, 2);
      await reached(other, 1);
      assert.equal(sound.broken, null);
      assert.deepEqual((await logOf(one)).lines, ['1 a', '2 b']);
      assert.equal(sound.counts.refused, 0);
    });

    test('while what was refused cannot be kept nothing is set aside or acknowledged either', async () => {
      const sound = await restart();
      const to = await claim();
      const repair = await refuseRows('log_chunk', marked);
      await execute('alter table refused_record rename to refused_record_away');
      await send(to, 1, [line('POISON'), line('b')]);
      await until(() => sound.broken !== null, patience);
      assert.equal(await markOf(to), 0);
      await execute('alter table refused_record_away rename to refused_record');
      await reached(to, 2);
      await repair();
      assert.equal((await keptOf(to)).length, 1);
    });

    test('a passing fault of one batch sets nothing aside, until it came ten times while others were stored', async () => {
      const { counts } = await restart();
      const [slow, good] = [await claim(), await claim()];
      await execute('create table failures (n integer)');
      // The rows of the failures are rolled back with it: their number is counted by a sequence, which is not.
      await execute('create sequence failed');
      const repair = await refuseRows('log_chunk', `${marked} and nextval('failed') > 0`, '57014');
      await send(slow, 1, [line('POISON'), line('b')]);
      for (let n = 1; (await keptOf(slow)).length === 0; n++) {
        await send(good, n, [line(`x${n}`)]);
        await reached(good, n);
      }
      await reached(slow, 2);
      await repair();
      const [row] = await store.database.db.execute<{ tries: string }>(sql`select last_value as tries from failed`);
      assert.ok(Number(row?.tries) >= 10, `it was tried ${row?.tries} times`);
      assert.deepEqual((await logOf(slow)).lines, ['2 b']);
      assert.equal(counts.refused, 1);
    });

    test('a job of which nothing at all can be written costs nobody anything, and loses nothing', async () => {
      const sound = await restart();
      const [stuck, good] = [await claim(), await claim()];
      const repair = await refuseRows('job_stream', `new.job_id = '${stuck.job.id}'`);
      await send(stuck, 1, [line('a')]);
      await send(good, 1, [line('x')]);
      await reached(good, 1);
      await until(() => reports.length >= 2, patience); // the line, and what would have set it aside
      assert.deepEqual([sound.broken, await markOf(stuck), (await keptOf(stuck)).length], [null, 0, 0]);
      await repair();
      await send(stuck, 1, [line('a')]); // as its runner does without an answer
      await reached(stuck, 1);
      assert.deepEqual((await logOf(stuck)).lines, ['1 a']);
    });

    test('a job may have 10,000 records that were refused; one more ends its attempt', async () => {
      const repair = await refuseRows('log_chunk', marked);
      await restart();
      const to = await claim();
      await execute(
        `insert into refused_record (attempt_id, number, job_id, project_id, attempt, record, reason)
         select 'earlier', n, '${to.job.id}', 'p-test', 0, '{}', 'test' from generate_series(1, ${maxRefusedOfJob - 1}) n`,
      );
      await send(to, 1, [started(), line('POISON'), line('a')]);
      await reached(to, 3);
      assert.equal((await jobOf(to)).state, 'RUNNING');
      await send(to, 4, [line('POISON again'), line('b')]);
      await until(async () => (await jobOf(to)).finishedAt !== null, patience);
      await repair();
      const { state, reasonCode, reasonMessage } = await jobOf(to);
      assert.deepEqual([state, reasonCode], ['FAILED', 'RECORD_REFUSED']);
      assert.match(reasonMessage ?? '', /Too many records/);
      await consumer?.stop();
      consumer = undefined;
      await execute(`delete from refused_record where attempt_id = 'earlier'`);
    });

    test('the control experiment leaves nothing behind', async () => {
      const tables = ['project', 'runner', 'job', 'attempt', 'event', 'log_chunk', 'metric_window', 'refused_record'];
      const counted = async () =>
        Promise.all(
          tables.map(async (table) => {
            const [row] = await store.database.db.execute(sql.raw(`select count(*) from ${table}`));
            return [table, row?.['count']];
          }),
        );
      const earlier = await counted();
      await runControl(store, new Set(['started', 'line', 'points', 'progress', 'checkpoint', 'alert', 'finished']));
      assert.deepEqual(await counted(), earlier);
    });
  });
}
