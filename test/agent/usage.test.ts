// What an attempt uses: CPU time that no process takes with it when it ends, memory that no two processes count twice, and
// both as metrics of a real job.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import fc from 'fast-check';
import { ControlGroup, findGroupFolder } from '../../src/agent/control-group.ts';
import { CpuTime, type ProcessTime } from '../../src/agent/cpu-time.ts';
import { processExecutor } from '../../src/agent/process.ts';
import { skipUnless } from '../support/absent.ts';
import { startAttempt } from '../support/attempt.ts';
import { until } from '../support/until.ts';

const root = mkdtempSync(join(tmpdir(), 'usage-'));
after(async () => {
  rmSync(root, { recursive: true, force: true });
  await expectNoLeaks();
});

const groupFolder = await findGroupFolder();
const kinds = [
  { kind: 'in a control group', executor: processExecutor(groupFolder), skip: skipUnless('cgroup v2') },
  { kind: 'without control groups', executor: processExecutor(null), skip: skipUnless('linux /proc') },
];
const megabyte = 1024 ** 2;
const allocated = 200 * megabyte;

suite('CPU time from stat files', () => {
  const initPid = 1;
  type Simulated = ProcessTime & { isZombie: boolean };

  /** Processes as the kernel keeps them: an orphan goes to init, and time goes to the parent that waits. */
  class Kernel {
    readonly all: Simulated[] = [];
    /** Ticks that were used by anybody. */
    used = 0;
    #pids = 1;

    fork(parent: number): void {
      const pid = ++this.#pids;
      this.all.push({ pid, life: `${pid} 0`, parent, ticks: 0, childTicks: 0, isZombie: false });
    }

    work(one: Simulated, ticks: number): void {
      one.ticks += ticks;
      this.used += ticks;
    }

    exit(one: Simulated): void {
      one.isZombie = true;
      for (const child of this.all) if (child.parent === one.pid) child.parent = initPid;
      for (const zombie of this.all.filter(({ parent, isZombie }) => parent === initPid && isZombie))
        this.#free(zombie);
    }

    reap(parent: Simulated, child: Simulated): void {
      parent.childTicks += child.ticks + child.childTicks;
      this.#free(child);
    }

    #free(one: Simulated): void {
      this.all.splice(this.all.indexOf(one), 1);
    }
  }

  const steps = fc.array(
    fc.record({
      act: fc.constantFrom('fork', 'work', 'work', 'exit', 'reap'),
      which: fc.nat(20),
      ticks: fc.integer({ min: 1, max: 50 }),
      isSeen: fc.boolean(),
    }),
    { maxLength: 80 },
  );

  function simulate(list: typeof steps extends fc.Arbitrary<infer List> ? List : never, looksAlways: boolean) {
    const kernel = new Kernel();
    const cpuTime = new CpuTime();
    const readings: { seconds: number; used: number }[] = [];
    kernel.fork(initPid);
    for (const { act, which, ticks, isSeen } of list) {
      const living = kernel.all.filter(({ isZombie }) => !isZombie);
      const one = living[which % living.length];
      if (!one) break;
      const zombie = kernel.all.find(({ parent, isZombie }) => parent === one.pid && isZombie);
      if (act === 'fork') kernel.fork(one.pid);
      if (act === 'work') kernel.work(one, ticks);
      if (act === 'exit') kernel.exit(one);
      if (act === 'reap' && zombie) kernel.reap(one, zombie);
      if (!looksAlways && !isSeen) continue;
      cpuTime.see(kernel.all.filter(({ isZombie }) => !isZombie).map((process) => ({ ...process })));
      readings.push({ seconds: cpuTime.seconds, used: kernel.used / 100 });
    }
    return readings;
  }

  test('is exact while each change is seen, whoever ends and whoever waits for whom', () => {
    fc.assert(
      fc.property(steps, (list) => {
        for (const { seconds, used } of simulate(list, true)) assert.equal(seconds, used);
      }),
      { numRuns: 500 },
    );
  });

  test('never falls and is never too much when much happens between two looks', () => {
    fc.assert(
      fc.property(steps, (list) => {
        let before = 0;
        for (const { seconds, used } of simulate(list, false)) {
          assert.ok(seconds >= before, `${seconds} after ${before}`);
          assert.ok(seconds <= used, `${seconds} of ${used}`);
          before = seconds;
        }
      }),
      { numRuns: 500 },
    );
  });
});

test('a group with the memory controller says its memory, without file pages that the kernel can drop', async () => {
  const folder = join(root, 'groups');
  mkdirSync(join(folder, 'att'), { recursive: true });
  const group = new ControlGroup(folder, 'att');
  assert.deepEqual([await group.readMemoryBytes(), await group.readCpuSeconds()], [null, null]);
  writeFileSync(join(folder, 'att', 'memory.current'), '5000000\n');
  writeFileSync(join(folder, 'att', 'memory.stat'), 'anon 3000000\nfile 2000000\ninactive_file 1500000\n');
  assert.equal(await group.readMemoryBytes(), 3_500_000);
});

/** Uses a core for so many milliseconds of CPU time. */
const burn = 'const burn = (ms) => { while (process.cpuUsage().user + process.cpuUsage().system < ms * 1000); };';
/** A child that burns and ends, then itself, with a large buffer; says what both used. */
const parent = `${burn}
  const buffer = Buffer.alloc(${allocated}, 1);
  const { spawnSync } = require('node:child_process');
  const child = spawnSync(process.execPath, ['-e', ${JSON.stringify(`${burn} burn(1200); console.log(process.cpuUsage())`)}]);
  const used = /user: (\\d+), system: (\\d+)/.exec(String(child.stdout));
  burn(800);
  const own = process.cpuUsage();
  console.log('used=' + (Number(used[1]) + Number(used[2]) + own.user + own.system) / 1e6 + ';');
  setInterval(() => buffer.length, 1000);`;

suite('a command', { concurrency: true }, () => {
  for (const [index, { kind, executor, skip }] of kinds.entries()) {
    test(`${kind} is measured with its children that ended, and its memory`, { ...skip, timeout: 60_000 }, async () => {
      const name = `usage_${process.pid}_${index}`;
      let output = '';
      const command = await executor.start({
        attemptId: name,
        command: [process.execPath, '-e', parent],
        cwd: root,
        env: { PATH: process.env['PATH'] ?? '', ASTRAML_JOB_ID: name, ASTRAML_ATTEMPT: '1' },
        onOutput: (_stream, chunk) => void (output += chunk.toString()),
      });
      let before = 0;
      const used = await until(
        async () => {
          const { cpuSeconds } = await command.usage();
          assert.ok(cpuSeconds !== null && cpuSeconds >= before, `${cpuSeconds} after ${before}`);
          before = cpuSeconds;
          return /used=([\d.]+);/.exec(output)?.[1];
        },
        { timeoutMs: 50_000, everyMs: 100, what: 'both have burnt' },
      );
      const { cpuSeconds, memoryBytes } = await command.usage();
      command.signal('SIGKILL');
      await command.ended;
      await until(() => command.isGone());
      assert.ok(Number(used) >= 2, used);
      assert.ok(cpuSeconds !== null && Math.abs(cpuSeconds - Number(used)) < 0.3, `${cpuSeconds} s, not ${used} s`);
      assert.ok(
        memoryBytes !== null && memoryBytes > allocated && memoryBytes < allocated + 150 * megabyte,
        `${memoryBytes} bytes`,
      );
      const { memoryBytes: afterwards } = await command.usage();
      assert.equal(afterwards, null, 'nothing has no memory, not 0 bytes');
    });
  }
});

/** Burns a core for 12 s; what it used in its first 10 s it says by itself. */
const burner = `
  const buffer = Buffer.alloc(${allocated}, 1);
  while (performance.now() < 10_000);
  const { user, system } = process.cpuUsage();
  console.log('percent=' + (user + system) / 1000 / performance.now() * 100 + ';');
  while (performance.now() < 12_000);
  console.log(buffer.length);`;
/** Ends after 9 s, and leaves behind what SIGTERM does not end: the attempt goes on for longer than 10 s. */
const leaver = ['/bin/sh', '-c', '(trap "" TERM; sleep 60 & wait; sleep 60) > /dev/null 2>&1 & sleep 9'];

suite('an attempt', { concurrency: true }, () => {
  for (const { kind, executor, skip } of kinds) {
    test(`${kind} has its usage as points after 10 s, and not in its log`, { ...skip, timeout: 60_000 }, async () => {
      const attempt = startAttempt({ workDir: root, executor, command: [process.execPath, '-e', burner] });
      await attempt.supervisor.done;
      const [percent = '', ...rest] = attempt.lines('STDOUT');
      assert.deepEqual([attempt.finished().outcome, rest], ['EXITED', [`${allocated}`]]);
      const started = attempt.records.find(({ type }) => type === 'started');
      const points = attempt.records.filter((record) => record.type === 'points');
      assert.equal(points.length, 1, 'the second would come after 20 s');
      assert.ok(started && points[0] && Math.abs(points[0].time - started.time - 10_000) < 2_000);
      assert.deepEqual([points[0].step, points[0].epoch], [null, null]);
      const { 'system/cpu': cpu, 'system/memory': memory, ...others } = points[0].values;
      const measured = Number(/percent=([\d.]+);/.exec(percent)?.[1]);
      assert.ok(measured > 20, `the burner had ${measured} % of a core: this machine is too busy to say anything`);
      assert.ok(Math.abs(Number(cpu) - measured) < 15, `${cpu} %, and ${measured} % by the command itself`);
      assert.ok(Number(memory) > allocated && Number(memory) < allocated + 150 * megabyte, `${memory} bytes`);
      assert.deepEqual(others, {});
    });

    test(`${kind} whose command ran for 9 s has none, however long its end takes`, skip, async () => {
      const attempt = startAttempt({ workDir: root, executor, command: leaver, graceMs: 2_500 });
      await attempt.supervisor.done;
      assert.deepEqual(attempt.troubles, []);
      assert.ok(attempt.finished().time - (attempt.records.find(({ type }) => type === 'started')?.time ?? 0) > 10_500);
      assert.ok(attempt.records.every(({ type }) => type !== 'points'));
    });
  }
});
