// What follows a failed attempt: its class decides whether, when and where the job runs again. The rules alone, then on
// real SQL, then the whole product.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { eq, sql } from 'drizzle-orm';
import fc from 'fast-check';
import { cancelJob } from '../../src/attempt/cancel.ts';
import { claimJob } from '../../src/attempt/claim.ts';
import { listLapsed } from '../../src/attempt/end.ts';
import { decideRetry, type End, type Ended, judgeEnd, runnersToLeaveOut } from '../../src/attempt/outcome.ts';
import { untilNextRetry } from '../../src/attempt/queue.ts';
import { attempt } from '../../src/attempt/table.ts';
import { channels } from '../../src/bus/bus.ts';
import { startJobLoops } from '../../src/gateway/background/job-loops.ts';
import { noCounts } from '../../src/intake/counts.ts';
import { takeBatches } from '../../src/intake/intake.ts';
import { expireLease } from '../../src/intake/lost.ts';
import { type Job, readJob } from '../../src/job/job.ts';
import type { ReasonCode } from '../../src/job/state.ts';
import { job } from '../../src/job/table.ts';
import { commit } from '../../src/live/commit.ts';
import type { Assignment } from '../../src/protocol/control.ts';
import { nextLinesCrc } from '../../src/protocol/record.ts';
import type { Runner } from '../../src/runner/runner.ts';
import { skipUnless } from '../support/absent.ts';
import { isAlive } from '../support/processes.ts';
import { createProject, jobState, type Stack, startStackOnServer, submit } from '../support/stack.ts';
import { batchOf, newJob, newRunner, openStore, type TestStore } from '../support/store.ts';
import { until } from '../support/until.ts';

const exited: End = {
  outcome: 'EXITED',
  exitCode: 1,
  signal: null,
  message: '',
  oomKilled: false,
  seconds: 3,
  lines: [],
};
const jobWith = (batch: unknown, source: 'DEFAULT' | 'REQUEST' = 'DEFAULT') => ({
  defaultsVersion: 'v2.1',
  resolved: [
    { path: 'hyperparams.batch_size', value: batch, source, overrides: [] },
    { path: 'hyperparams.gradient_accumulation_steps', value: 1, source, overrides: [] },
  ],
});

suite('the end of an attempt', () => {
  const codeOf = (end: Partial<End>) => judgeEnd({ ...exited, ...end }, jobWith(32)).reason.code;

  test('has one class', () => {
    const killed = { outcome: 'SIGNALLED', signal: 'SIGKILL', exitCode: null } as const;
    assert.equal(codeOf({ exitCode: 0 }), 'COMPLETED');
    assert.equal(codeOf({}), 'EXIT_CODE');
    assert.equal(codeOf(killed), 'SIGNAL');
    assert.equal(codeOf({ ...killed, oomKilled: true }), 'OUT_OF_MEMORY');
    assert.equal(codeOf({ ...killed, signal: 'SIGTERM', oomKilled: true }), 'SIGNAL');
    assert.equal(codeOf({ exitCode: 137, oomKilled: true }), 'OUT_OF_MEMORY');
    assert.equal(codeOf({ exitCode: 1, oomKilled: true }), 'EXIT_CODE', 'somebody else of the group was killed');
    assert.equal(codeOf({ outcome: 'NOT_STARTED' }), 'COMMAND_NOT_STARTED');
    assert.equal(codeOf({ outcome: 'DRAINED' }), 'RUNNER_DRAINED');
    assert.equal(codeOf({ outcome: 'CUT_OFF' }), 'RUNNER_LOST');
    assert.equal(codeOf({ outcome: 'TIMEOUT' }), 'TIMEOUT');
  });

  test('says what happened, and what to do next', () => {
    const killed = { outcome: 'SIGNALLED', signal: 'SIGKILL', exitCode: null } as const;
    const cases: [end: Partial<End>, message: RegExp, hint: RegExp | null][] = [
      [{ exitCode: 0 }, /^Exit code 0 after 5 s\.$/, null],
      [{}, /^Exit code 1 after 5 s\.$/, /last lines of its log/],
      [{ exitCode: 75 }, /^Exit code 75 after 5 s\.$/, /asks to be tried again/],
      [killed, /^Ended by SIGKILL after 5 s\.$/, /Nobody here sent it: .*kernel for want of memory/],
      [{ ...killed, signal: 'SIGSEGV' }, /^Ended by SIGSEGV after 5 s\.$/, /last lines of its log/],
      [
        { ...killed, oomKilled: true },
        /^The host ran out of memory: ended by SIGKILL after 5 s\.$/,
        /Lower .* data loader/,
      ],
      [{ exitCode: 137, oomKilled: true }, /^The host ran out of memory: exit code 137 /, /or use a larger machine/],
      [{ outcome: 'TIMEOUT' }, /^Timed out after 5 s\.$/, /Raise timeoutSeconds/],
      [
        { outcome: 'NOT_STARTED', message: 'x was not found.' },
        /could not be started: x was not found\.$/,
        /exists on the/,
      ],
      [{ outcome: 'DRAINED' }, /handed the job back/, /costs the job none of its retries/],
      [{ outcome: 'CUT_OFF' }, /lost the gateway and stopped the job after 5 s, as on_cut asks/, /Look at the network/],
    ];
    for (const [end, message, hint] of cases) {
      const { reason } = judgeEnd({ ...exited, ...end, seconds: 5 }, jobWith(32));
      assert.match(reason.message, message);
      if (hint) assert.match(reason.hint ?? '', hint);
      else assert.equal(reason.hint, undefined);
    }
  });

  test('for want of GPU memory names the batch size, its source, and what to do', () => {
    const line =
      'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB';
    const { state, reason } = judgeEnd({ ...exited, lines: ['epoch 1', line, 'bye'] }, jobWith(32));
    assert.deepEqual([state, reason.code], ['FAILED', 'CUDA_OUT_OF_MEMORY']);
    assert.equal(
      reason.message,
      'CUDA out of memory: tried to allocate 2.00 GiB on GPU 0 (batch_size 32 from DEFAULT v2.1).',
    );
    assert.equal(reason.hint, 'Lower the batch size: --set batch_size=16 --set gradient_accumulation_steps=2');
    assert.match(
      judgeEnd({ ...exited, lines: [line] }, jobWith(8, 'REQUEST')).reason.message,
      /batch_size 8 from REQUEST\)/,
    );
    assert.match(judgeEnd({ ...exited, lines: [line] }, jobWith(1)).reason.hint ?? '', /a GPU with more memory/);
    assert.equal(codeOf({ lines: ['java.lang.OutOfMemoryError: Java heap space'] }), 'EXIT_CODE');
    assert.equal(codeOf({ lines: [line], exitCode: 75 }), 'EXIT_CODE', 'the script knows better');
  });
});

suite('after an attempt', () => {
  const ended = (reasonCode: ReasonCode, exitCode: number | null = null, runnerId = 'a'): Ended => ({
    runnerId,
    reasonCode,
    exitCode,
  });
  const times = (count: number, item: Ended) => Array.from({ length: count }, () => item);

  test('that failed the job runs again as often as it may, later each time, within ten minutes', () => {
    const delays = Array.from({ length: 11 }, (_, n) => decideRetry(times(n + 1, ended('EXIT_CODE', 1)), 10, 0));
    assert.deepEqual(
      delays.map((retry) => retry?.delayMs),
      [10, 20, 40, 80, 160, 320, 600, 600, 600, 600]
        .map((seconds) => seconds * 1000)
        .concat(NaN)
        .map((ms) => ms || undefined),
    );
    assert.equal(decideRetry([ended('SIGNAL')], 1, 1)?.delayMs, 12_000);
    assert.equal(decideRetry([ended('OUT_OF_MEMORY')], 0, 0), null);
    assert.equal(decideRetry([ended('SIGNAL'), ended('CUDA_OUT_OF_MEMORY')], 1, 0), null);
    assert.deepEqual(decideRetry([ended('EXIT_CODE', 1)], 2, 0)?.which, 'retry 1 of 2');
  });

  test('that exited 75 the job runs again five times, and that costs it none of its retries', () => {
    const tempFail = ended('EXIT_CODE', 75);
    assert.deepEqual(
      [1, 5, 6].map((count) => decideRetry(times(count, tempFail), 0, 0)?.which),
      ['retry 1 of 5', 'retry 5 of 5', undefined],
    );
    assert.equal(decideRetry([...times(5, tempFail), ended('EXIT_CODE', 1)], 1, 0)?.delayMs, 10_000);
  });

  test('that the runner ended the job runs again at once, until it happened five times in a row', () => {
    const [lost, drained] = [ended('RUNNER_LOST'), ended('RUNNER_DRAINED')];
    assert.deepEqual(decideRetry([lost, drained, lost, drained], 0, 0), { delayMs: 0, which: null });
    assert.equal(decideRetry([lost, drained, lost, drained, lost], 9, 0), null);
    assert.ok(decideRetry([lost, lost, ended('EXIT_CODE', 1), lost, lost, lost], 9, 0));
    assert.ok(decideRetry([lost, lost, lost, ended('EXIT_CODE', 1)], 1, 0), 'what is ours is not counted');
  });

  test('that was never started, or timed out, the job does not run again', () => {
    for (const code of ['COMMAND_NOT_STARTED', 'TIMEOUT', 'COMPLETED', 'REQUESTED'] as const)
      assert.equal(decideRetry([ended(code)], 10, 0), null);
  });

  test('of any kind there is an end to it', () => {
    const codes = fc.constantFrom('EXIT_CODE', 'SIGNAL', 'OUT_OF_MEMORY', 'CUDA_OUT_OF_MEMORY', 'START_TIMEOUT');
    const failures = fc.array(
      fc.record({ reasonCode: codes, exitCode: fc.constantFrom(1, 75), runnerId: fc.constant('a') }),
      {
        minLength: 20,
        maxLength: 20,
      },
    );
    fc.assert(
      fc.property(failures, fc.nat(10), fc.double({ min: 0, max: 1, noNaN: true }), (history, maxRetries, random) => {
        const ends = history.findIndex((_, n) => decideRetry(history.slice(0, n + 1), maxRetries, random) === null);
        assert.ok(ends >= 0 && ends <= maxRetries + 5);
        const delays = history.slice(0, ends).map((_, n) => decideRetry(history.slice(0, n + 1), maxRetries, random));
        assert.ok(delays.every((retry) => retry && retry.delayMs >= 10_000 && retry.delayMs <= 600_000));
      }),
    );
  });

  test('that failed twice the same way on a runner, that runner is left out', () => {
    const on = (runnerId: string, code: ReasonCode) => ended(code, null, runnerId);
    assert.deepEqual(runnersToLeaveOut([on('a', 'SIGNAL'), on('a', 'EXIT_CODE'), on('b', 'SIGNAL')]), []);
    assert.deepEqual(runnersToLeaveOut([on('a', 'SIGNAL'), on('b', 'SIGNAL'), on('a', 'SIGNAL')]), ['a']);
    assert.deepEqual(runnersToLeaveOut([on('a', 'RUNNER_DRAINED'), on('a', 'RUNNER_DRAINED')]), []);
  });
});

suite('a job', () => {
  let store: TestStore;
  let runner: Runner;
  let requests = 0;
  const leaseSeconds = 30;
  before(async () => {
    store = await openStore();
    runner = await newRunner(store, 'one', 4);
  });
  after(() => store.close());

  async function tryClaim(by = runner, freeGpus = [0, 1, 2, 3]): Promise<Assignment | null> {
    const request = { runnerId: by.id, freeGpus, requestId: `r${requests++}`, waitSeconds: 0 };
    return commit(store, (tx) => claimJob(tx, store.runnerActor, request, leaseSeconds));
  }
  async function claim(by = runner): Promise<Assignment> {
    const assignment = await tryClaim(by);
    assert.ok(assignment);
    return assignment;
  }
  async function send(to: Assignment, records: object[]): Promise<void> {
    const counts = noCounts();
    await commit(store, (tx) => takeBatches(tx, [batchOf(to, 1, records)], leaseSeconds, counts));
    assert.equal(counts.fenced, 0);
  }
  const time = () => Date.now();
  async function end(to: Assignment, how: Partial<End>, lines: string[] = []): Promise<Job> {
    await send(to, [
      { type: 'started', time: time() },
      ...lines.map((text) => ({ type: 'line', time: time(), stream: 'STDERR', text })),
      {
        type: 'finished',
        time: time(),
        ...exited,
        ...how,
        lines: lines.length,
        linesCrc: lines.reduce(nextLinesCrc, 0),
      },
    ]);
    return jobOf(to.job.id);
  }
  const jobOf = async (id: string) => (await readJob(store.database.db, id)).job;
  /** The pause is over. */
  const skipPause = (id: string) =>
    store.database.db
      .update(job)
      .set({ notBefore: sql`clock_timestamp()` })
      .where(eq(job.id, id));
  async function lapse(to: Assignment): Promise<void> {
    const leaseExpiresAt = sql`clock_timestamp() - interval '1 s'`;
    await store.database.db.update(attempt).set({ leaseExpiresAt }).where(eq(attempt.id, to.attemptId));
    for (const lapsed of await listLapsed(store.database.db, 10)) await commit(store, (tx) => expireLease(tx, lapsed));
  }

  test('that failed pauses, says why, is claimed again behind the pause, and fails when no retry is left', async () => {
    const { id } = await newJob(store, { max_retries: 1 });
    const first = await end(await claim(), {}, ['one', '\x1b[31mbang\x1b[0m']);
    assert.deepEqual([first.state, first.reasonCode], ['QUEUED', 'RETRY_BACKOFF']);
    assert.equal(first.reasonMessage, 'Exit code 1 after 0 s. Then comes retry 1 of 1.');
    assert.deepEqual(first.logExcerpt, ['one', 'bang']);
    const pauseMs = (first.notBefore?.getTime() ?? 0) - Date.now();
    assert.ok(pauseMs > 8_000 && pauseMs <= 12_500, `${pauseMs}`);
    assert.ok(Math.abs(((await untilNextRetry(store.database.db)) ?? 0) - pauseMs) < 2_000);
    assert.equal(await tryClaim(), null);
    await skipPause(id);
    const again = await claim();
    assert.deepEqual([again.job.id, again.attemptNumber], [id, 2]);
    const second = await end(again, {}, ['two']);
    assert.deepEqual([second.state, second.reasonCode, second.logExcerpt], ['FAILED', 'EXIT_CODE', ['two']]);
    assert.equal(await untilNextRetry(store.database.db), null);
  });

  test('that asks for no retries has none but for exit code 75', async () => {
    await newJob(store);
    assert.equal((await end(await claim(), {})).state, 'FAILED');
    const { id } = await newJob(store);
    assert.equal((await end(await claim(), { exitCode: 75 })).reasonCode, 'RETRY_BACKOFF');
    await skipPause(id);
    assert.equal((await end(await claim(), { exitCode: 1 })).state, 'FAILED');
  });

  test('that ran out of memory says which', async () => {
    await newJob(store);
    const { reasonCode, reasonMessage, reasonHint } = await end(await claim(), {}, ['CUDA out of memory', 'bye']);
    assert.deepEqual(
      [reasonCode, reasonMessage],
      ['CUDA_OUT_OF_MEMORY', 'CUDA out of memory (batch_size 32 from DEFAULT v2.1).'],
    );
    assert.match(reasonHint ?? '', /batch_size=16/);
    await newJob(store);
    const killed = { outcome: 'SIGNALLED', signal: 'SIGKILL', exitCode: null, oomKilled: true } as const;
    assert.equal((await end(await claim(), killed)).reasonCode, 'OUT_OF_MEMORY');
  });

  test('that an older attempt ran out of GPU memory is not said of the next', async () => {
    const { id } = await newJob(store, { max_retries: 1 });
    await end(await claim(), {}, ['CUDA out of memory']);
    await skipPause(id);
    assert.equal((await end(await claim(), {}, ['other'])).reasonCode, 'EXIT_CODE');
  });

  test('whose runner drains or is cut off queues at once, and keeps its retries', async () => {
    const { id } = await newJob(store);
    for (const outcome of ['DRAINED', 'CUT_OFF', 'DRAINED', 'CUT_OFF'] as const) {
      const { state, notBefore } = await end(await claim(), { outcome, exitCode: null });
      assert.deepEqual([state, notBefore], ['QUEUED', null]);
    }
    const last = await end(await claim(), { outcome: 'DRAINED', exitCode: null });
    assert.deepEqual([last.id, last.state, last.reasonCode], [id, 'FAILED', 'RUNNER_DRAINED']);
    assert.match(last.reasonHint ?? '', /many times in a row/);
  });

  test('that used its time up in all attempts together is TIMED_OUT, not retried', async () => {
    const { id } = await newJob(store, { max_retries: 9, timeout_seconds: 60 });
    const to = await claim();
    assert.equal(to.timeoutSeconds, 60);
    const ago = sql`clock_timestamp() - interval '40 s'`;
    const age = () => store.database.db.update(attempt).set({ createdAt: ago }).where(eq(attempt.jobId, id));
    await age();
    await send(to, [{ type: 'started', time: Date.now() - 30_000 }]);
    await sendEnd(to);
    await skipPause(id);
    const again = await claim();
    assert.equal(again.timeoutSeconds, 30);
    await age();
    await send(again, [{ type: 'started', time: Date.now() - 31_000 }]);
    await sendEnd(again);
    const { state, reasonCode, reasonMessage } = await jobOf(id);
    assert.deepEqual([state, reasonCode], ['TIMED_OUT', 'TIMEOUT']);
    assert.match(reasonMessage ?? '', /Nothing is left of its 60 s/);
  });

  async function sendEnd(to: Assignment): Promise<void> {
    const record = { type: 'finished', time: time(), ...exited, lines: 0, linesCrc: 0 };
    await commit(store, (tx) => takeBatches(tx, [batchOf(to, 2, [record])], leaseSeconds, noCounts()));
  }

  test('that failed twice the same way on a runner goes to another, and back only when there is none', async () => {
    const { id } = await newJob(store, { max_retries: 9 });
    await end(await claim(), {});
    await skipPause(id);
    assert.deepEqual((await end(await claim(), {})).leftOut, [runner.id]);
    await skipPause(id);
    const other = await newRunner(store, 'other', 1);
    assert.equal(await tryClaim(), null);
    const to = await claim(other);
    assert.equal(to.job.id, id);
    await end(to, { exitCode: 0 });
    const away = sql`clock_timestamp() - interval '1 hour'`;
    const { runner: table } = await import('../../src/runner/table.ts');
    await store.database.db.update(table).set({ lastSeenAt: away }).where(eq(table.id, other.id));
    const left = await newJob(store);
    await store.database.db
      .update(job)
      .set({ leftOut: [runner.id] })
      .where(eq(job.id, left.id));
    const back = await claim();
    assert.equal(back.job.id, left.id);
    await end(back, { exitCode: 0 });
  });

  test('that is cancelled in its pause ends at once; one whose runner is lost ends with the lease', async () => {
    const paused = await newJob(store, { max_retries: 1 });
    await end(await claim(), {});
    const wish = { reason: null, gracePeriodSeconds: null };
    await commit(store, (tx) => cancelJob(tx, store.admin, { id: paused.id, ...wish }));
    assert.equal((await jobOf(paused.id)).state, 'CANCELLED');

    const { id } = await newJob(store, { max_retries: 9 });
    const to = await claim();
    await send(to, [{ type: 'started', time: time() }]);
    await commit(store, (tx) => cancelJob(tx, store.admin, { id, ...wish }));
    assert.equal((await jobOf(id)).state, 'CANCELLING', 'until it is proved');
    await lapse(to);
    assert.deepEqual([(await jobOf(id)).state, (await jobOf(id)).reasonCode], ['CANCELLED', 'REQUESTED']);
  });

  test('that waits too long, or whose command does not run in time, ends; two gateways look at once', async () => {
    const waits = await newJob(store, { queue_timeout_seconds: 1, resources: { gpus: 64 } });
    const patient = await newJob(store, { resources: { gpus: 64 } });
    const slow = await newJob(store, { start_timeout_seconds: 1, max_retries: 1, priority: 100 });
    const quick = await newJob(store, { start_timeout_seconds: 1, priority: 99 });
    const to = await claim();
    assert.equal(to.job.id, slow.id);
    const started = await claim();
    assert.equal(started.job.id, quick.id);
    await send(started, [{ type: 'started', time: time() }]);
    const troubles: unknown[] = [];
    const loops = [1, 2].flatMap(() => startJobLoops(store, { isWell: () => true }, (error) => troubles.push(error)));
    const reaches = (id: string, state: string) =>
      until(async () => (await jobOf(id)).state === state && jobOf(id), { timeoutMs: 8_000, what: state });
    const late = await reaches(waits.id, 'TIMED_OUT');
    assert.equal(late.reasonCode, 'QUEUE_TIMEOUT');
    assert.match(late.reasonMessage ?? '', /within 1 s\. No runner online offers 64 GPUs; the largest has 4 GPUs\./);
    const again = await reaches(slow.id, 'QUEUED');
    assert.deepEqual(
      [again.reasonCode, again.reasonMessage],
      ['RETRY_BACKOFF', 'The command did not run within 1 s of its claim. Then comes retry 1 of 1.'],
    );
    await skipPause(slow.id);
    assert.equal((await claim()).job.id, slow.id);
    assert.equal((await reaches(slow.id, 'TIMED_OUT')).reasonCode, 'START_TIMEOUT');
    assert.deepEqual([(await jobOf(quick.id)).state, (await jobOf(patient.id)).state], ['RUNNING', 'QUEUED']);
    await Promise.all(loops.map((loop) => loop.stop()));
    assert.deepEqual(troubles, []);
    await sendEnd(started);
    await commit(store, (tx) => cancelJob(tx, store.admin, { id: patient.id, reason: null, gracePeriodSeconds: null }));
  });

  test('is found among 1,000 that wait within a moment', async (t) => {
    const [template] = await store.database.db.select().from(job).where(eq(job.state, 'FAILED')).limit(1);
    assert.ok(template);
    await store.database.db.execute(sql`
      insert into job (id, project_id, number, name, state, model, dataset, spec, effective, resolved, defaults_version,
        spec_hash, tags, priority, gpus)
      select 'job_many' || n, project_id, 100000 + n, name, 'QUEUED', model, dataset, spec, effective, resolved,
        defaults_version, spec_hash, tags, 0, 1 from job, generate_series(1, 1000) n where id = ${template.id}`);
    await store.database.db.execute(sql`insert into job_stream (job_id) select id from job where id like 'job_many%'`);
    const each: number[] = [];
    for (let n = 0; n < 10; n++) {
      const startedAt = performance.now();
      assert.equal(await tryClaim(runner, []), null);
      each.push(performance.now() - startedAt);
    }
    const median = each.sort((a, b) => a - b)[5] ?? 0;
    t.diagnostic(`a claim that reads 1,000 queued jobs: ${median.toFixed(1)} ms (median of 10)`);
    assert.ok(median < 250, `${median} ms`);
  });
});

suite('the whole product', () => {
  let stack: Stack;
  before(async () => {
    stack = await startStackOnServer({ graceMs: 1_000 });
    await createProject(stack.client, 'p-again');
  });
  after(async () => {
    await stack.stop();
    await expectNoLeaks();
  });
  const sh = (source: string) => ['/bin/sh', '-c', source];
  const reaches = (id: string, state: string) =>
    until(async () => (await jobState(stack.client, id)).state === state && jobState(stack.client, id), {
      timeoutMs: 20_000,
      what: state,
    });
  const positions = async (ids: string[]) => {
    const asked = ids.map((id, n) => `j${n}: job(id: "${id}") { queuePosition }`).join(' ');
    const answer = await stack.client.request<Record<string, { queuePosition: number | null }>>(`{ ${asked} }`);
    return ids.map((_, n) => answer[`j${n}`]?.queuePosition);
  };

  test('runs a job again when its pause is over, also when nobody says anything', async () => {
    const command = sh('echo "attempt $ASTRAML_ATTEMPT"; test "$ASTRAML_ATTEMPT" = 2');
    const { id } = await submit(stack.client, 'p-again', { command, maxRetries: 1 });
    const { stateReason } = await until(
      async () => {
        const found = await jobState(stack.client, id);
        return found.stateReason?.code === 'RETRY_BACKOFF' && found;
      },
      { timeoutMs: 10_000, what: 'the pause' },
    );
    assert.match(
      stateReason?.message ?? '',
      /^Exit code 1 after \d s\. Then comes retry 1 of 1\. It may start in \d+ s\.$/,
    );
    assert.deepEqual(stateReason?.logExcerpt.at(-1), 'attempt 1');
    const { database, bus } = stack.gateway.store;
    const notBefore = sql`clock_timestamp() + interval '1.5 s'`;
    await database.db.update(job).set({ notBefore }).where(eq(job.id, id));
    const startedAt = performance.now();
    await bus.publish(channels.work, '{}'); // claims that wait learn when to look again
    await reaches(id, 'SUCCEEDED');
    const seconds = (performance.now() - startedAt) / 1000;
    assert.ok(seconds > 1.3 && seconds < 8, `${seconds} s`);
  });

  test('says where a job stands in the queue, and why it waits', async () => {
    const running = await submit(stack.client, 'p-again', { command: sh('sleep 30') });
    await reaches(running.id, 'RUNNING');
    const [low, high] = [
      await submit(stack.client, 'p-again', { command: sh('true') }),
      await submit(stack.client, 'p-again', { command: sh('true'), priority: 7 }),
    ];
    assert.deepEqual(await positions([running.id, high.id, low.id]), [null, 1, 2]);
    const { stateReason } = await jobState(stack.client, low.id);
    assert.equal(stateReason?.message, '1 runner matches 1 GPU; not enough GPUs are free.');
    const giant = await submit(stack.client, 'p-again', {
      resources: { gpus: 9 },
      queueTimeoutSeconds: 1,
      command: sh('true'),
    });
    assert.equal((await reaches(giant.id, 'TIMED_OUT')).stateReason?.code, 'QUEUE_TIMEOUT');
    await cancel(running.id);
    await reaches(low.id, 'SUCCEEDED');
  });

  test(
    'calls a job CANCELLED when a child that forked twice and ignores SIGTERM is gone',
    skipUnless('linux /proc'),
    async () => {
      const daemon = `trap '' TERM; echo pid=$$; while :; do sleep 1; done`;
      const command = sh(`(setsid sh -c "(${daemon.replaceAll('$', '\\$')}) &" &) ; sleep 60`);
      const { id } = await submit(stack.client, 'p-again', { command });
      const query = 'query ($id: ID!) { job(id: $id) { logs(last: 20) { nodes { text } } } }';
      const pid = await until(
        async () => {
          const found = await stack.client.request<{ job: { logs: { nodes: { text: string }[] } } }>(query, { id });
          const line = found.job.logs.nodes.find(({ text }) => text.startsWith('pid='));
          return line && Number(line.text.slice(4));
        },
        { timeoutMs: 10_000, what: 'the pid' },
      );
      await cancel(id);
      await reaches(id, 'CANCELLED');
      assert.equal(isAlive(pid), false);
    },
  );

  async function cancel(id: string): Promise<void> {
    await stack.client.request(
      'mutation ($id: ID!) { cancelJob(input: { id: $id, gracePeriodSeconds: 1 }) { __typename } }',
      { id },
    );
  }
});
