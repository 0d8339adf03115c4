// Input of any size is stored and asked for in statements of few parameters: names of metrics, windows of a backlog, lists
// of a filter. Postgres takes 65,535 parameters at most, so each case here has more.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { and, asc, eq } from 'drizzle-orm';
import { loadActiveAttempts, loadAttempts, loadAttemptsOfJobs } from '../../src/attempt/attempt.ts';
import { claimJob } from '../../src/attempt/claim.ts';
import { listJobEvents, loadJobEvents } from '../../src/event/event.ts';
import { noCounts } from '../../src/intake/counts.ts';
import { takeBatches } from '../../src/intake/intake.ts';
import { lockFree, lockJobs } from '../../src/job/ended.ts';
import { changeJob, type Job, loadJobs, readJob } from '../../src/job/job.ts';
import { countJobs, type JobFilter, listJobs } from '../../src/job/list.ts';
import { commit } from '../../src/live/commit.ts';
import { pruneLogs } from '../../src/log/log.ts';
import { readLog } from '../../src/log/read.ts';
import { appendPoints } from '../../src/metric/append.ts';
import { getMetric, listMetrics, readLastWindows } from '../../src/metric/metric.ts';
import { readSeries } from '../../src/metric/points.ts';
import { prunePoints, pruneWindows } from '../../src/metric/retention.ts';
import { metricWindow } from '../../src/metric/table.ts';
import { readLastMerged } from '../../src/metric/merged.ts';
import { planWindows } from '../../src/metric/window-plan.ts';
import { loadPolicies, setPolicy } from '../../src/policy/policy.ts';
import { loadProjects } from '../../src/project/project.ts';
import type { Assignment } from '../../src/protocol/control.ts';
import { maxBatchBytes } from '../../src/protocol/record.ts';
import { listRunners, loadRunners } from '../../src/runner/runner.ts';
import { runDueSchedules } from '../../src/schedule/due.ts';
import { addPoints, closeWindows, rollUpAll } from '../support/measure.ts';
import { batchOf, newJob, newRunner, openStore, testProject, type TestStore } from '../support/store.ts';

const leaseSeconds = 30;
const all = { names: null, closedOnly: false };

/** `count` names, so many of them in each record. */
function records(count: number, each: number, time: (record: number) => number, prefix = 'm/') {
  return Array.from({ length: Math.ceil(count / each) }, (_, n) => ({
    type: 'points',
    time: time(n),
    step: null,
    epoch: null,
    values: Object.fromEntries(
      Array.from({ length: Math.min(each, count - n * each) }, (_value, k) => [`${prefix}${n * each + k}`, 1]),
    ),
  }));
}

for (const engine of ['any', 'embedded'] as const) {
  suite(engine === 'embedded' ? 'embedded' : 'on a server where there is one', { timeout: 300_000 }, () => {
    let store: TestStore;
    let next = 1;
    before(async () => void (store = await openStore(engine === 'embedded' ? { engine } : {})));
    after(() => store.close());

    async function claim(spec: object = {}): Promise<{ job: Job; assignment: Assignment }> {
      const runner = await newRunner(store, `r${next}`);
      const job = await newJob(store, { ...spec, priority: 100 });
      const request = { runnerId: runner.id, freeGpus: [0], requestId: `q${next++}`, waitSeconds: 0 };
      const assignment = await commit(store, (tx) => claimJob(tx, store.runnerActor, request, leaseSeconds));
      assert.ok(assignment);
      return { job, assignment };
    }

    async function send(to: Assignment, first: number, sent: unknown[], maxNames?: number) {
      const batch = batchOf(to, first, sent);
      assert.ok(
        batch.recordsJson.length <= maxBatchBytes,
        `${batch.recordsJson.length} bytes are no batch of a runner`,
      );
      const counts = noCounts();
      await commit(store, (tx) => takeBatches(tx, [batch], leaseSeconds, counts, maxNames));
      assert.equal(counts.records, sent.length);
    }

    const windowsOf = (jobId: string) =>
      store.database.db
        .select()
        .from(metricWindow)
        .where(eq(metricWindow.jobId, jobId))
        .orderBy(asc(metricWindow.change));

    async function systemLines(jobId: string): Promise<string[]> {
      const { line: head } = await readJob(store.database.db, jobId);
      const options = { after: 0, head, maxLines: 1_000, maxBytes: 100_000, filter: { streams: ['SYSTEM' as const] } };
      const { lines } = await readLog(store.database.db, jobId, options);
      return lines.map(({ text }) => text);
    }

    test('a batch of 6,600 names is stored, its windows too, and again with more of each', async () => {
      const { job, assignment } = await claim();
      const now = Date.now();
      for (const first of [1, 34])
        await send(
          assignment,
          first,
          records(6_600, 200, () => now),
        );
      const metrics = await listMetrics(store.database.db, job.id, null);
      assert.deepEqual([metrics.length, new Set(metrics.map(({ count }) => count))], [6_600, new Set([2])]);
      const windows = await windowsOf(job.id);
      assert.equal(
        windows.reduce((sum, { state }) => sum + state.count, 0),
        13_200,
      );
      assert.equal(new Set(windows.map(({ change }) => change)).size, windows.length, 'each change has its number');
    });

    test('a backlog of 199 metrics a second for 48 s is taken whole, and closed in the order of starts and names', async () => {
      const { job, assignment } = await claim({ metrics: { window_seconds: 1 } });
      const start = Math.ceil(Date.now() / 1000) * 1000;
      // A record's time lies in the attempt's life, so that a backlog needs an attempt as long: points are stored as one is.
      const points = Array.from({ length: 48 }, (_, second) =>
        Array.from({ length: 199 }, (_point, n) => ({
          name: `m/${n}`,
          value: second,
          step: second,
          epoch: null,
          time: start + second * 1000,
        })),
      ).flat();
      await commit(store, (tx) => changeJob(tx, job.id, (locked) => appendPoints(tx, locked, 1, 1, points)));
      const windows = await windowsOf(job.id);
      assert.deepEqual([windows.length, windows.filter(({ closed }) => closed).length], [199 * 48, 199 * 45]);
      const closed = windows.filter((window) => window.closed);
      assert.deepEqual(new Set(closed.map(({ revision }) => revision)), new Set([2]));
      const inOrder = await store.database.db
        .select({ change: metricWindow.change })
        .from(metricWindow)
        .where(and(eq(metricWindow.jobId, job.id), eq(metricWindow.closed, true)))
        .orderBy(asc(metricWindow.start), asc(metricWindow.name));
      const first = windows.length + 1;
      assert.deepEqual(
        inOrder.map(({ change }) => change),
        closed.map((_, n) => first + n),
      );
      assert.equal((await readJob(store.database.db, job.id)).window, 2 * windows.length - 3 * 199);
      await send(assignment, 1, [{ type: 'started', time: Date.now() }]);
    });

    test('a metric of a thousand different values in one batch has them all', async () => {
      const { job, assignment } = await claim();
      const now = Date.now();
      const sent = Array.from({ length: 1_000 }, (_, n) => ({
        type: 'points',
        time: now,
        step: n,
        epoch: null,
        values: { v: 1.1 ** (n - 500) },
      }));
      await send(assignment, 1, sent);
      const found = await getMetric(store.database.db, job.id, 'v');
      assert.deepEqual([found?.count, found?.min?.step, found?.max?.step, found?.last.step], [1_000, 0, 999, 999]);
    });

    test('a job keeps the first names that came, and its log names the first refused one, once', async () => {
      const { job, assignment } = await claim();
      const now = Date.now();
      await send(
        assignment,
        1,
        records(6, 3, () => now, 'a/'),
        8,
      );
      await send(assignment, 3, [...records(4, 2, () => now, 'b/'), ...records(2, 1, () => now, 'a/')], 8);
      await send(
        assignment,
        7,
        records(3, 3, () => now, 'c/'),
        8,
      );
      const metrics = await listMetrics(store.database.db, job.id, null);
      assert.deepEqual(
        metrics.map(({ name, count }) => `${name}:${count}`),
        ['a/0:2', 'a/1:2', 'a/2:1', 'a/3:1', 'a/4:1', 'a/5:1', 'b/0:1', 'b/1:1'],
      );
      const lines = await systemLines(job.id);
      assert.equal(lines.length, 1);
      assert.match(lines[0] ?? '', /"b\/2".* 8 of a job.*ASTRAML_MAX_METRIC_NAMES/);
      const source = {
        job: await readJob(store.database.db, job.id).then((read) => read.job),
        attempts: [],
        retention: days,
      };
      const request = { x: 'TIME', from: null, to: null, maxPoints: 10, downsampling: 'NONE', attempt: null } as const;
      const [kept, refused] = await readSeries(
        store.database.db,
        source,
        ['b/1', 'b/2'].map((name) => ({ ...request, name })),
      );
      assert.deepEqual(
        [kept, refused].map((series) => series && 'x' in series && series.x.length),
        [1, 0],
      );
      // A limit that is raised takes new names from then on; what the log says, it has said.
      await send(
        assignment,
        8,
        records(3, 3, () => now, 'c/'),
        10,
      );
      assert.equal((await listMetrics(store.database.db, job.id, ['c/*'])).length, 2);
      assert.equal((await systemLines(job.id)).length, 1);
    });

    test('metrics.max_names of a spec or of a policy, by its maximum alone too, lowers the limit and never raises it', async () => {
      const namesKept = async (spec: object, maxNames: number): Promise<[number, string]> => {
        const { job, assignment } = await claim(spec);
        await send(
          assignment,
          1,
          records(9, 9, () => Date.now()),
          maxNames,
        );
        return [(await listMetrics(store.database.db, job.id, null)).length, (await systemLines(job.id)).join()];
      };
      const setRules = async (
        rules: { path: string; max?: number; default?: unknown; enforcement?: 'DENY' | 'WARN' }[],
      ) => {
        const input = { projectId: testProject, rules, ifRevision: null, comment: null };
        await commit(store, (tx) => setPolicy(tx, store.admin, input));
      };
      assert.match((await namesKept({ metrics: { max_names: 3 } }, 5)).join(), /^3,.*max_names allows 3 /);
      assert.match(
        (await namesKept({ metrics: { max_names: 7 } }, 5)).join(),
        /^5,.* 5 of a job.*ASTRAML_MAX_METRIC_NAMES/,
      );
      await setRules([{ path: 'metrics.max_names', max: 4 }]);
      assert.match((await namesKept({}, 5)).join(), /^4,.*max_names allows 4 /);
      assert.match((await namesKept({ metrics: { max_names: 2 } }, 5)).join(), /^2,/);
      await assert.rejects(
        newJob(store, { metrics: { max_names: 5 } }),
        /max_names 5 is above the project's maximum 4/,
      );
      await setRules([{ path: 'metrics.max_names', default: 3 }]);
      assert.match((await namesKept({}, 5)).join(), /^3,/);
      await setRules([{ path: 'metrics.max_names', max: 4, enforcement: 'WARN' }]);
      assert.match((await namesKept({}, 5)).join(), /^5,/, 'a rule that warns changes nothing');
      await setRules([]);
    });

    test('the newest windows of all metrics are those of each, at any length', async () => {
      const { id } = await newJob(store);
      const start = 1_700_000_400;
      const names = ['a', 'b', 'c'];
      for (const [n, attempt] of [1, 1, 2, 2].entries()) {
        const points = names.flatMap((name, k) =>
          Array.from({ length: 5 }, (_, step) => ({ name, value: k, time: start + n * 400 + step * 70 })),
        );
        await addPoints(store, id, points, attempt);
      }
      const read = async () => {
        const { db } = store.database;
        const { job, window: head } = await readJob(db, id);
        const own = await readLastWindows(db, id, head, 3, all);
        const wide = await readLastMerged(db, await planWindows(db, job, 300, days), 2, all);
        const one = await readLastWindows(db, id, head, 3, { ...all, names: ['b'] });
        return { own, wide, one };
      };
      for (const step of [() => closeWindows(store, id), () => rollUpAll(store)]) {
        const { own, wide, one } = await read();
        assert.deepEqual(Map.groupBy(own, ({ name }) => name).get('b'), one);
        assert.deepEqual(
          own.map(({ name }) => name),
          names.flatMap((name) => [name, name, name]),
        );
        assert.ok(one.every(({ start: at }, n) => n === 0 || at > (one[n - 1]?.start ?? 0)));
        assert.deepEqual(
          wide.map(({ name }) => name),
          [...names, ...names],
          'the two newest of each, oldest first',
        );
        assert.equal(new Set(wide.map(({ start: at }) => at)).size, 2);
        await step();
      }
    });

    test('lists of any length are asked for in one parameter', async () => {
      // The embedded engine answers likewise, but takes seconds for each list of 70,000.
      const length = engine === 'embedded' ? 2_000 : 70_000;
      const many = Array.from({ length }, (_, n) => `x${n}`);
      await newJob(store);
      const { id } = await newJob(store);
      const { db } = store.database;
      const ids = [id, ...many, 'quo"te', 'back\\slash', '{', 'NULL'];
      const filtered = (filter: JobFilter) => countJobs(db, store.admin, filter);
      const states = Array.from({ length }, () => 'QUEUED' as const);
      const types = Array.from({ length }, () => 'SUBMITTED' as const);
      assert.equal((await loadJobs(db, ids)).size, 1);
      assert.ok((await filtered({ projectIds: [...many, testProject] })) > 0);
      assert.equal(await filtered({ projectIds: many }), 0);
      assert.equal(await filtered({ projectIds: [] }), 0);
      assert.ok((await filtered({ states })) > 0);
      assert.equal(await filtered({ tags: many }), 0);
      const page = { field: 'CREATED_AT', descending: true, limit: 1, backward: false } as const;
      assert.equal((await listJobs(db, store.admin, { ...page, filter: { states } })).length, 2);
      assert.equal((await listJobEvents(db, id, { types, limit: 5, backward: false })).length, 1);
      assert.equal((await loadAttempts(db, ids)).size, 0);
      assert.equal((await loadAttemptsOfJobs(db, ids)).size, 0);
      assert.equal((await loadActiveAttempts(db, ids)).size, 0);
      assert.equal((await loadJobEvents(db, ids)).size, 0);
      assert.equal((await loadProjects(db, [...many, testProject])).size, 1);
      assert.equal((await loadRunners(db, many)).size, 0);
      const online = Array.from({ length }, (_, n) => (n % 2 ? ('ONLINE' as const) : ('OFFLINE' as const)));
      assert.ok((await listRunners(db, online, { limit: 1, backward: false })).length > 0);
      const policies = Array.from({ length }, (_, n) => `pol_${testProject}_${n}`);
      assert.ok((await loadPolicies(db, policies)).has(`pol_${testProject}_1`));
      assert.equal(await runDueSchedules(store, { held: new Map(many.map((held) => [held, Infinity])) }), false);
      await commit(store, async (tx) => {
        await lockJobs(tx, ids);
        assert.equal(await lockFree(tx, ids), id);
        for (const prune of [pruneLogs, prunePoints, pruneWindows]) assert.equal(await prune(tx, many, 1_000), 'ALL');
      });
    });
  });
}

const days = { metricRawDays: 30, metricWindowDays: 365 };

test('no list becomes a parameter for each of its values', () => {
  const src = fileURLToPath(new URL('../../src', import.meta.url));
  const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  const wrong = files.filter((file) =>
    /\b(notI|i)nArray\(|\.values\(\s*\[|\.values\(\s*\w+\.map\(/.test(readFileSync(join(src, file), 'utf8')),
  );
  assert.deepEqual(
    wrong.filter((file) => file !== 'database/rows.ts'),
    [],
    'use isOneOf() and insertRows()',
  );
});
