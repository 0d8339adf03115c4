// One attempt when what it stands on fails: the disk, the gateway, both; and when somebody else has its job.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { findGroupFolder } from '../../src/agent/control-group.ts';
import type { Executor } from '../../src/agent/executor.ts';
import { processExecutor } from '../../src/agent/process.ts';
import { nextLinesCrc } from '../../src/protocol/record.ts';
import { type AttemptOptions, startAttempt as start } from '../support/attempt.ts';
import { isAlive, listProcessesOf } from '../support/processes.ts';
import { until } from '../support/until.ts';

const root = mkdtempSync(join(tmpdir(), 'supervisor-'));
after(async () => {
  rmSync(root, { recursive: true, force: true });
  await expectNoLeaks();
});

const groupFolder = await findGroupFolder();

function startAttempt(source: string, options: Partial<AttemptOptions> = {}) {
  const command = [process.execPath, '-e', source];
  return start({ executor: processExecutor(groupFolder), workDir: root, command, ...options });
}

const pidsOf = (folder: string) => listProcessesOf(folder).map(({ pid }) => pid);

/** Its command has ended, whatever of it was sent. */
async function untilEnded({ folder }: ReturnType<typeof startAttempt>): Promise<void> {
  await until(() => pidsOf(folder).length === 0, { timeoutMs: 20_000, everyMs: 100, what: 'the end of the command' });
}

/** Runs commands, and puts a file where the spool's folder should be before it starts one. */
function breakingDisk(folder: () => string): Executor {
  return {
    ...processExecutor(groupFolder),
    start(options) {
      rmSync(join(folder(), 'spool'), { recursive: true, force: true });
      writeFileSync(join(folder(), 'spool'), 'no folder');
      return processExecutor(groupFolder).start(options);
    },
  };
}

test('a disk that takes nothing is told, and the job goes on while the gateway takes its records', async () => {
  const attempt = startAttempt(
    "let n = 0; const timer = setInterval(() => { console.log('line ' + ++n); if (n === 60) clearInterval(timer); }, 10)",
    {
      executor: breakingDisk(() => attempt.folder),
    },
  );
  await attempt.supervisor.done;
  assert.deepEqual(
    attempt.lines('STDOUT'),
    Array.from({ length: 60 }, (_, n) => `line ${n + 1}`),
  );
  assert.equal(
    attempt.lines('SYSTEM').filter((text) => text.includes('The disk of the runner takes no records')).length,
    1,
  );
  assert.equal(attempt.troubles.length, 1);
  assert.match(String(attempt.troubles[0]), /The spool of att_\d+ cannot be written/);
  assert.deepEqual(
    [attempt.finished().outcome, attempt.finished().exitCode, attempt.finished().lines],
    ['EXITED', 0, 60],
  );
});

test('with disk and gateway away for long the attempt stops before it loses a record, and hands the job back', async () => {
  const attempt = startAttempt(
    "const text = 'x'.repeat(16000); const print = () => process.stdout.write((text + '\\n').repeat(50), () => setImmediate(print)); print()",
    {
      executor: breakingDisk(() => attempt.folder),
    },
  );
  attempt.gateway.away = true;
  await until(() => attempt.troubles.some((trouble) => String(trouble).includes('spool')));
  await untilEnded(attempt);
  attempt.gateway.away = false;
  await attempt.supervisor.done;
  const { outcome, signal, lines } = attempt.finished();
  assert.deepEqual([outcome, signal], ['DRAINED', 'SIGTERM']);
  assert.equal(attempt.lines('STDOUT').length, lines);
  assert.ok(lines > 3_000, `${lines} lines`);
  assert.ok(attempt.lines('SYSTEM').some((text) => text.includes('Neither the disk of the runner nor the gateway')));
});

test('with its spool full it loses its oldest lines, says so once, and its end counts what arrives', async () => {
  const lines = 40_000;
  const attempt = startAttempt(
    `for (let n = 1; n <= ${lines}; n++) { console.log('line ' + n + ' ' + 'x'.repeat(60)); if (n % 1000 === 0) console.log('::astraml {"n": ' + n + '}'); }`,
    { spoolBytes: 1024 * 1024 },
  );
  attempt.gateway.away = true;
  await until(() => attempt.troubles.some((trouble) => String(trouble).includes('is full')), { timeoutMs: 20_000 });
  await untilEnded(attempt);
  await sleep(1_500); // the spool gives lines away behind what it writes
  attempt.gateway.away = false;
  await attempt.supervisor.done;
  const stored = attempt.lines('STDOUT');
  const gaps = attempt.records.filter((record) => record.type === 'gap');
  const lost = gaps.reduce((sum, gap) => sum + gap.lines, 0);
  assert.ok(lost > 20_000, `${lost} lost`);
  assert.equal(stored.length + lost, lines);
  assert.equal(stored.at(-1)?.split(' ')[1], String(lines), 'the newest are there');
  const points = attempt.records.filter((record) => record.type === 'points' && 'n' in record.values);
  assert.equal(points.length, lines / 1_000, 'every point is there');
  assert.ok(gaps.length <= lines / 1_000 + 1, `${gaps.length} gaps`);
  const { outcome, lines: counted, linesCrc } = attempt.finished();
  assert.deepEqual([outcome, counted, linesCrc], ['EXITED', stored.length, stored.reduce(nextLinesCrc, 0)]);
  assert.equal(attempt.troubles.filter((trouble) => String(trouble).includes('is full')).length, 1);
});

test('a work folder that cannot be made ends the attempt with what is wrong', async () => {
  const workDir = join(root, 'broken');
  mkdirSync(workDir);
  writeFileSync(join(workDir, 'attempts'), 'no folder');
  const attempt = startAttempt('', { workDir });
  await attempt.supervisor.done;
  assert.equal(attempt.finished().outcome, 'NOT_STARTED');
  assert.match(attempt.finished().message, /ENOTDIR/);
});

test('an abandoned attempt stops, sends nothing more and leaves no process', async () => {
  const attempt = startAttempt(
    "process.on('SIGTERM', () => console.log('too late')); setInterval(() => {}, 99); console.log('pid=' + process.pid)",
    {
      graceMs: 300,
    },
  );
  const pid = Number((await until(() => /pid=(\d+)/.exec(attempt.lines('STDOUT')[0] ?? '')))[1]);
  attempt.gateway.directives = [{ type: 'ABANDON' }];
  attempt.supervisor.ask();
  await attempt.supervisor.done;
  assert.equal(isAlive(pid), false);
  assert.deepEqual(attempt.lines('STDOUT'), [`pid=${pid}`]);
  assert.notEqual(attempt.records.at(-1)?.type, 'finished');
});

test('an attempt that is stopped before its command is started never starts it', async () => {
  const attempt = startAttempt("console.log('never')");
  attempt.supervisor.stop('DRAINED');
  await attempt.supervisor.done;
  assert.deepEqual(attempt.lines('STDOUT'), []);
  assert.equal(attempt.finished().outcome, 'DRAINED');
});

test('a second stop can only hurry the first', async () => {
  const attempt = startAttempt("process.on('SIGTERM', () => {}); setInterval(() => {}, 99); console.log('up')");
  await until(() => attempt.lines('STDOUT').length > 0);
  attempt.supervisor.stop('CANCELLED', 60_000);
  const startedAt = performance.now();
  attempt.supervisor.stop('DRAINED', 200);
  attempt.supervisor.stop('TIMEOUT', 60_000);
  await attempt.supervisor.done;
  assert.ok(performance.now() - startedAt < 30_000, 'half of the time that the first gave');
  assert.deepEqual([attempt.finished().outcome, attempt.finished().signal], ['CANCELLED', 'SIGKILL']);
});

test('an attempt that is given up ends, also when the gateway is away', async () => {
  const attempt = startAttempt(
    "process.on('SIGTERM', () => {}); setInterval(() => {}, 99); console.log('pid=' + process.pid)",
  );
  const pid = Number((await until(() => /pid=(\d+)/.exec(attempt.lines('STDOUT')[0] ?? '')))[1]);
  attempt.gateway.away = true;
  attempt.supervisor.stop('DRAINED', 60_000);
  attempt.supervisor.abandon(0);
  const startedAt = performance.now();
  await attempt.supervisor.done;
  assert.ok(performance.now() - startedAt < 30_000, 'half of the time that it was given before');
  assert.equal(isAlive(pid), false);
});

suite('a job that stops when it is cut off', () => {
  /** Ignores SIGTERM. A shell, since Node takes longer to start on a busy machine than the shortest lease here. */
  const startStubborn = (options: Partial<AttemptOptions> = {}) =>
    startAttempt('', {
      command: ['/bin/sh', '-c', "trap 'echo no' TERM; echo pid=$$; while :; do sleep 1; done"],
      spec: { on_cut: 'stop' },
      ...options,
    });
  const pidOf = async (attempt: ReturnType<typeof startAttempt>) => {
    const line = await until(() => attempt.lines('STDOUT').find((text) => text.startsWith('pid=')), {
      what: 'its pid',
    });
    return Number(line.slice(4));
  };

  test('goes on for as long as the gateway is heard', async () => {
    const attempt = startStubborn({ leaseMs: 900 });
    const pid = await pidOf(attempt);
    await sleep(2_000);
    assert.ok(isAlive(pid));
    attempt.supervisor.stop('CANCELLED', 0);
    await attempt.supervisor.done;
  });

  test('is gone before its lease can lapse, also when it ignores SIGTERM, and says so when it is heard again', async () => {
    const leaseMs = 3_000;
    const attempt = startStubborn({ leaseMs, graceMs: 30_000 });
    const pid = await pidOf(attempt);
    attempt.gateway.away = true;
    await until(() => !isAlive(pid), { timeoutMs: 10_000, what: 'the end of the process' });
    const elapsedMs = performance.now() - attempt.gateway.heardAt;
    assert.ok(elapsedMs < leaseMs, `${elapsedMs} ms after the last batch that was taken`);
    assert.ok(elapsedMs > leaseMs / 2, `${elapsedMs} ms: no sooner than it must`);
    attempt.gateway.away = false;
    await attempt.supervisor.done;
    assert.equal(attempt.finished().outcome, 'CUT_OFF');
    assert.match(attempt.lines('SYSTEM').join(' '), /No gateway was heard for most of the lease/);
  });

  test('is not begun before a gateway says that the lease is ours, and never when it says that it is not', async () => {
    const attempts = [[], [{ type: 'ABANDON' as const }]].map((directives) => {
      const attempt = startStubborn();
      Object.assign(attempt.gateway, { away: true, directives });
      return attempt;
    });
    await sleep(1_000);
    for (const { folder, gateway } of attempts) {
      assert.deepEqual(pidsOf(folder), []);
      gateway.away = false;
    }
    const [ours, lost] = attempts;
    assert.ok(ours && lost);
    assert.ok(isAlive(await pidOf(ours)));
    await lost.supervisor.done;
    assert.equal(lost.records.filter(({ type }) => type === 'started').length, 0);
    ours.supervisor.stop('CANCELLED', 0);
    await ours.supervisor.done;
  });

  test('has less time than a cancellation gave it', async () => {
    const attempt = startStubborn({ leaseMs: 1_500 });
    const pid = await pidOf(attempt);
    attempt.supervisor.stop('CANCELLED', 60_000);
    attempt.gateway.away = true;
    await until(() => !isAlive(pid), { timeoutMs: 5_000, what: 'the end of the process' });
    attempt.gateway.away = false;
    await attempt.supervisor.done;
    assert.equal(attempt.finished().outcome, 'CANCELLED');
  });
});

test('one that does not stop when it is cut off goes on without its lease', async () => {
  const attempt = startAttempt("setTimeout(() => console.log('done'), 1_500)", { leaseMs: 600 });
  attempt.gateway.away = true;
  await sleep(1_000);
  attempt.gateway.away = false;
  await attempt.supervisor.done;
  assert.deepEqual([attempt.finished().outcome, attempt.lines('STDOUT')], ['EXITED', ['done']]);
});
