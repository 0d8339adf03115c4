// Commands as processes: real ones, with all the ways in which they end, and do not end.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { spawn, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, afterEach, suite, test } from 'node:test';
import { environmentOf } from '../../src/agent/environment.ts';
import type { AttemptName, CommandOptions, Executor, RunningCommand, User } from '../../src/agent/executor.ts';
import { countOomKills } from '../../src/agent/memory.ts';
import { findGroupFolder } from '../../src/agent/control-group.ts';
import { wrap } from '../../src/agent/wrapper.ts';
import { processExecutor } from '../../src/agent/process.ts';
import type { Assignment } from '../../src/protocol/control.ts';
import { skipUnless } from '../support/absent.ts';
import { makeCgroup } from '../support/cgroup.ts';
import { isAlive } from '../support/processes.ts';
import { until } from '../support/until.ts';

const root = realpathSync(mkdtempSync(join(tmpdir(), 'process-')));
chmodSync(root, 0o711);
// Its control group goes too, and nobody looks for its processes any more: without groups that is all of /proc, ten times a second.
afterEach(async () => {
  for (const run of runs.splice(0)) await untilGone(run);
});
after(async () => {
  rmSync(root, { recursive: true, force: true });
  await expectNoLeaks();
});

let jobs = 0;
const runs: Run[] = [];
type Run = { command: RunningCommand; output: { STDOUT: string; STDERR: string }; name: AttemptName };

/** With a control group an attempt, and where processes are only remembered. */
const groupFolder = await findGroupFolder();
const kinds = [
  { kind: 'in a control group', executor: processExecutor(groupFolder), skip: skipUnless('cgroup v2') },
  { kind: 'without control groups', executor: processExecutor(null), skip: {} },
  {
    kind: 'under a uid of its own',
    executor: processExecutor(groupFolder),
    skip: skipUnless('own uids'),
    user: { uid: 70_000, groups: [], home: '/' },
  },
];

function startWith(executor: Executor, folder: string, user?: User) {
  return async (command: string[], options: Partial<CommandOptions> = {}): Promise<Run> => {
    const id = `${process.pid}_${++jobs}`;
    const name = { attemptId: `att_${id}`, jobId: `job_${id}`, attempt: '1' };
    const output = { STDOUT: '', STDERR: '' };
    const names = { ASTRAML_JOB_ID: name.jobId, ASTRAML_ATTEMPT: name.attempt };
    const running = await executor.start({
      attemptId: name.attemptId,
      command,
      cwd: folder,
      user,
      env: { PATH: process.env['PATH'] ?? '', TMPDIR: folder, ...names, ...options.env },
      onOutput: (stream, chunk) => void (output[stream] += chunk.toString()),
      ...(options.cwd ? { cwd: options.cwd } : {}),
    });
    const run = { command: running, output, name: { ...name, life: running.life } };
    runs.push(run);
    return run;
  };
}

/** Holds this thread, as a gateway in the same process may do, and leaves the core to others. */
const block = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

const sh = (source: string) => ['/bin/sh', '-c', source];
const node = (source: string) => [process.execPath, '--eval', source];

/** The pid that a command printed. */
async function pidOf(run: Run, name = 'pid'): Promise<number> {
  const pattern = new RegExp(`${name}=(\\d+)`);
  return Number((await until(() => pattern.exec(run.output.STDOUT), { what: `${name} is printed` }))[1]);
}

async function untilGone(run: Run, timeoutMs = 5_000): Promise<void> {
  await until(() => run.command.isGone(), { timeoutMs, what: 'all processes are gone' });
}

for (const { kind, executor, skip, user } of kinds) {
  const folder = join(root, kind);
  mkdirSync(folder);
  if (user && !skip.skip) chownSync(folder, user.uid, user.uid);
  const start = startWith(executor, folder, user);
  suite(kind, skip, () => {
    suite('a command', () => {
      test('ends with its exit code', async () => {
        for (const code of [0, 1, 3, 75, 255]) {
          const { command } = await start(sh(`exit ${code}`));
          assert.deepEqual(await command.ended, { exitCode: code, signal: null });
          assert.equal(await command.isGone(), true);
        }
      });

      test(
        'that is ended by a signal without a name ends with 128 and its number, not with 0',
        skipUnless('linux /proc'),
        async () => {
          for (const number of [34, 64]) {
            const { command } = await start(sh(`kill -${number} $$`));
            assert.deepEqual(await command.ended, { exitCode: 128 + number, signal: null });
          }
        },
      );

      test('may exit with the numbers that a shell tells a signal by', async () => {
        for (const code of [137, 143]) {
          const { command } = await start(sh(`exit ${code}`));
          assert.deepEqual(await command.ended, { exitCode: code, signal: null });
        }
      });

      test('ends with its signal', async () => {
        for (const signal of ['TERM', 'KILL', 'SEGV', 'INT', 'PIPE']) {
          const { command } = await start(sh(`kill -${signal} $$`));
          assert.deepEqual(await command.ended, { exitCode: null, signal: `SIG${signal}` });
        }
      });

      test('that is not there or may not be executed is refused with a sentence', async () => {
        const plain = join(folder, 'plain.sh');
        writeFileSync(plain, 'echo hello', { mode: 0o644 });
        await assert.rejects(start(['no-such-program']), { message: 'no-such-program was not found on the runner.' });
        await assert.rejects(start(['/no/such/program']), { message: '/no/such/program was not found on the runner.' });
        await assert.rejects(start([plain]), { message: `${plain} may not be executed on the runner.` });
        await assert.rejects(start([folder]), { message: `${folder} may not be executed on the runner.` });
        await assert.rejects(start(['']));
        await assert.rejects(start(['/bin/echo', 'a\0b']));
        await assert.rejects(start(['/bin/echo', 'x'.repeat(4_000_000)]), /E2BIG/);
      });

      test('runs in its folder, with its environment and nothing else', async () => {
        const cwd = join(folder, 'a folder');
        mkdirSync(cwd);
        process.env['ASTRAML_TEST_LEAK'] = 'secret';
        const run = await start(sh('pwd; env'), { cwd, env: { MINE: 'a b\nc' } });
        delete process.env['ASTRAML_TEST_LEAK'];
        await run.command.ended;
        assert.ok(run.output.STDOUT.startsWith(`${cwd}\n`));
        assert.ok(run.output.STDOUT.includes('MINE=a b\nc'));
        assert.ok(!run.output.STDOUT.includes('ASTRAML_TEST_LEAK'));
      });

      test('is looked for in the PATH that it is given', async () => {
        const bin = join(folder, 'bin');
        mkdirSync(bin);
        writeFileSync(join(bin, 'train'), '#!/bin/sh\necho trained\n', { mode: 0o755 });
        const run = await start(['train'], { env: { PATH: bin } });
        await run.command.ended;
        assert.equal(run.output.STDOUT, 'trained\n');
      });

      test('finds its input at its end', async () => {
        const run = await start(sh('read line || echo nothing'));
        await run.command.ended;
        assert.equal(run.output.STDOUT, 'nothing\n');
      });

      test('starts soon: what it costs beside a bare process is printed', async (t) => {
        const median = async (work: () => Promise<unknown>) => {
          const times: number[] = [];
          for (let n = 0; n < 11; n++) {
            const startedAt = performance.now();
            await work();
            times.push(performance.now() - startedAt);
          }
          return times.toSorted((a, b) => a - b)[5] ?? 0;
        };
        const env = { ASTRAML_JOB_ID: 'job', ASTRAML_ATTEMPT: '1' };
        const wrapped = wrap(['/bin/true'], env, { user, enters: false });
        const options = { stdio: ['ignore', 'ignore', 'ignore', 'ignore', 'ignore'] as StdioOptions };
        const bare = await median(() => once(spawn('/bin/true', { ...options, env }), 'exit'));
        const shell = await median(() =>
          once(spawn(wrapped.file, wrapped.args, { ...options, env: wrapped.env }), 'exit'),
        );
        const whole = await median(async () => (await start(['/bin/true'])).command.ended);
        const figures = { bare, wrapped: shell, added: shell - bare, 'with pipes and group': whole };
        t.diagnostic(
          Object.entries(figures)
            .map(([what, ms]) => `${what} ${ms.toFixed(1)} ms`)
            .join(', '),
        );
      });

      test('has two pipes, which are read to their ends', async () => {
        const run = await start(
          node(`
      const text = 'x'.repeat(999) + '\\n';
      for (let n = 0; n < 500; n++) { process.stdout.write(text); process.stderr.write(text); }
    `),
        );
        await run.command.ended;
        assert.equal(run.output.STDOUT.length, 500_000);
        assert.equal(run.output.STDERR.length, 500_000);
      });

      test('may open its output again by name', async () => {
        const run = await start(sh('echo a > /dev/stdout; echo b > /dev/stderr; echo c | tee /dev/stderr; exit 5'));
        assert.equal((await run.command.ended).exitCode, 5);
        assert.deepEqual(run.output, { STDOUT: 'a\nc\n', STDERR: 'b\nc\n' });
      });

      test('prints as much as it likes while nobody reads', async () => {
        const run = await start(node("for (let n = 0; n < 2000; n++) console.log('line ' + n); process.exit(0)"));
        block(400);
        await run.command.ended;
        assert.ok(run.output.STDOUT.endsWith('line 1999\n'));
      });

      test('is read to its end also when we are busy while it ends', async () => {
        const run = await start(
          sh('sleep 0.3; (sleep 30) & i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done'),
        );
        block(3_000);
        await run.command.ended;
        assert.ok(run.output.STDOUT.endsWith('line 299\n'));
        run.command.signal('SIGKILL');
        await untilGone(run);
      });
    });

    suite('signals', () => {
      test('reach the command and its children', async () => {
        const run = await start(sh('sleep 60 & echo pid=$!; wait'));
        const pid = await pidOf(run);
        run.command.signal('SIGTERM');
        assert.deepEqual(await run.command.ended, { exitCode: null, signal: 'SIGTERM' });
        await untilGone(run);
        assert.equal(isAlive(pid), false);
      });

      test('reach each process once', async () => {
        const source =
          "let n = 0; process.on('SIGTERM', () => { console.log('term', ++n); setTimeout(() => process.exit(0), 300); }); setInterval(() => {}, 9); console.log('pid=' + process.pid)";
        const run = await start(node(source));
        await pidOf(run);
        run.command.signal('SIGTERM');
        await run.command.ended;
        assert.ok(!run.output.STDOUT.includes('term 2'));
      });

      test('that are ignored are followed by one that is not', async () => {
        const run = await start(sh("trap '' TERM; sleep 60 & echo pid=$!; wait"));
        const pid = await pidOf(run);
        run.command.signal('SIGTERM');
        await new Promise((resolve) => setTimeout(resolve, 300));
        assert.equal(await run.command.isGone(), false);
        assert.ok(isAlive(pid));
        run.command.signal('SIGKILL');
        assert.equal((await run.command.ended).signal, 'SIGKILL');
        await untilGone(run);
        assert.equal(isAlive(pid), false);
      });
    });

    suite('what a command leaves behind', () => {
      test('keeps the attempt from being gone, not from ending', async () => {
        const run = await start(sh('sleep 60 & echo pid=$!'));
        const startedAt = performance.now();
        assert.deepEqual(await run.command.ended, { exitCode: 0, signal: null });
        assert.ok(performance.now() - startedAt < 4_000, 'a grandchild holds the pipe, and keeps nothing open');
        const pid = await pidOf(run);
        assert.equal(await run.command.isGone(), false);
        run.command.signal('SIGTERM');
        await untilGone(run);
        assert.equal(isAlive(pid), false);
      });

      test('is found in a session of its own, and ended', skipUnless('linux /proc'), async () => {
        const source = `
      const { spawn } = require('node:child_process');
      const inner = "require('node:child_process').spawn('sleep', ['60'], { detached: true, stdio: 'ignore' }).unref()";
      const child = spawn(process.execPath, ['-e', inner], { detached: true, stdio: 'ignore' });
      child.on('exit', () => process.exit(0));
    `;
        const run = await start(node(source));
        assert.deepEqual(await run.command.ended, { exitCode: 0, signal: null });
        assert.equal(await run.command.isGone(), false);
        run.command.signal('SIGTERM');
        await untilGone(run);
      });

      test('by way of setsid is found too, also when it ignores SIGTERM', skipUnless('linux /proc'), async () => {
        const run = await start(
          sh(`setsid sh -c "trap '' TERM; echo pid=\\$\\$; sleep 60; sleep 60" > out.txt 2>&1 & sleep 0.5`),
        );
        await run.command.ended;
        const pid = Number(/pid=(\d+)/.exec(readFileSync(join(folder, 'out.txt'), 'utf8'))?.[1]);
        assert.equal(await run.command.isGone(), false);
        run.command.signal('SIGTERM'); // ends the first sleep, not the shell
        await new Promise((resolve) => setTimeout(resolve, 300));
        assert.equal(await run.command.isGone(), false);
        run.command.signal('SIGKILL');
        await untilGone(run);
        assert.equal(isAlive(pid), false);
      });

      test('as a zombie does not count', skipUnless('linux /proc'), async () => {
        const run = await start(sh('sleep 0.1 & echo pid=$!; exec sleep 60')); // which never waits for its child
        const pid = await pidOf(run);
        await until(() => !isAlive(pid), { what: 'the end of the child' });
        assert.ok(process.kill(pid, 0), 'to the kernel it is still there');
        const left = await run.command.listLeft();
        assert.ok(left.some(({ command }) => command === 'sleep 60') && !left.some((one) => one.pid === pid));
        run.command.signal('SIGKILL');
        await run.command.ended;
        await untilGone(run, 2_000);
      });

      test('of another attempt is not touched', skipUnless('linux /proc'), async () => {
        const [mine, other] = [await start(sh('exec sleep 60')), await start(sh('exec sleep 60'))];
        assert.equal(await executor.endStrays({ attemptId: 'att_other', jobId: mine.name.jobId, attempt: '2' }), 0);
        assert.equal(await executor.endStrays(mine.name), 1);
        assert.equal((await mine.command.ended).signal, 'SIGKILL');
        assert.equal(await other.command.isGone(), false);
        other.command.signal('SIGKILL');
        await other.command.ended;
      });

      test('by an earlier life is gone when it was ended', skipUnless('linux /proc'), async () => {
        const run = await start(sh('trap "" TERM; sleep 60 & sleep 60 & echo pid=$!; wait'));
        const pid = await pidOf(run);
        assert.equal(await executor.endStrays(run.name), 3);
        assert.equal(isAlive(pid), false);
        await run.command.ended;
      });

      test('and does not end by SIGKILL is named, and waited for', skipUnless('cgroup freezer'), async (t) => {
        const run = await start(sh('echo pid=$$; exec sleep 60'));
        const pid = await pidOf(run);
        const group = makeCgroup('freezer');
        t.after(() => group.remove());
        group.write('cgroup.procs', `${pid}`);
        group.write('freezer.state', 'FROZEN'); // as one that waits for a disk
        let [named, isOver]: [number[], boolean] = [[], false];
        const ending = executor.endStrays(run.name, (pids) => (named = pids)).finally(() => (isOver = true));
        await until(() => named.length > 0, { timeoutMs: 8_000, what: 'it is named' });
        assert.deepEqual([named, isOver, isAlive(pid)], [[pid], false, true]);
        group.write('freezer.state', 'THAWED');
        assert.equal(await ending, 1);
        assert.equal(isAlive(pid), false);
        await run.command.ended;
      });
    });
  });
}

suite('the environment', () => {
  const assignment: Assignment = {
    attemptId: 'att_1',
    attemptNumber: 2,
    leaseToken: 'lease',
    gpus: [3, 1],
    job: { id: 'job_1', number: 42, name: 'brave-otter', projectId: 'p-demo', scheduleId: 'sch_1' },
    spec: {
      model: 'bert-base',
      dataset: 's3://bucket/dataset',
      hyperparams: {
        batch_size: 32,
        lr: 3e-5,
        lr_scheduler: 'linear',
        early_stopping: { enabled: true, patience: 5 },
        layers: [1, 2],
        'weird-name.x': 'a "quoted" word',
        nothing: null,
      },
    },
    command: ['train'],
    env: { MINE: 'yes', PATH: '/job/bin', ASTRAML_MODEL: 'not mine', CUDA_VISIBLE_DEVICES: '7', COLUMNS: '80' },
    secretEnv: [],
    timeoutSeconds: 60,
    committed: 0,
  };
  const folders = { work: '/w', output: '/o', config: '/c.json', stopFile: '/s.json' };
  const host = {
    PATH: '/bin',
    HOME: '/root',
    LC_ALL: 'C.UTF-8',
    NVIDIA_VISIBLE_DEVICES: 'all',
    SSL_CERT_FILE: '/certs',
    AWS_SECRET_ACCESS_KEY: 'secret',
    ASTRAML_TOKEN: 'secret',
    DATABASE_URL: 'secret',
    NODE_OPTIONS: 'secret',
    HOMEBREW: 'secret',
    MY_PATH: 'secret',
  };
  const env = (change: Partial<Assignment> = {}, virtualGpus = false) =>
    environmentOf({ ...assignment, ...change }, folders, {
      host,
      gatewayUrl: 'http://gateway',
      virtualGpus,
      now: 1_000_000,
    });

  test('takes a little of the host', () => {
    const made = env({ env: {} });
    assert.equal(made['PATH'], '/bin');
    assert.equal(made['HOME'], '/root');
    assert.equal(made['LC_ALL'], 'C.UTF-8');
    assert.equal(made['NVIDIA_VISIBLE_DEVICES'], 'all');
    assert.equal(made['SSL_CERT_FILE'], '/certs');
    assert.ok(!Object.values(made).includes('secret'));
  });

  test("lets the job's variables win over the host's, and ours over both", () => {
    const made = env();
    assert.equal(made['MINE'], 'yes');
    assert.equal(made['PATH'], '/job/bin');
    assert.equal(made['COLUMNS'], '80');
    assert.equal(made['ASTRAML_MODEL'], 'bert-base');
    assert.equal(made['ASTRAML_SCHEDULE_ID'], 'sch_1');
    assert.equal(made['CUDA_VISIBLE_DEVICES'], '3,1');
  });

  test('has one variable for each hyperparameter', () => {
    const made = env();
    const hyperparams = Object.fromEntries(Object.entries(made).filter(([name]) => name.startsWith('ASTRAML_HP_')));
    assert.deepEqual(hyperparams, {
      ASTRAML_HP_BATCH_SIZE: '32',
      ASTRAML_HP_LR: '0.00003',
      ASTRAML_HP_LR_SCHEDULER: 'linear',
      ASTRAML_HP_EARLY_STOPPING_ENABLED: 'true',
      ASTRAML_HP_EARLY_STOPPING_PATIENCE: '5',
      ASTRAML_HP_LAYERS: '[1,2]',
      ASTRAML_HP_WEIRD_NAME_X: 'a "quoted" word',
      ASTRAML_HP_NOTHING: 'null',
    });
    assert.deepEqual(JSON.parse(made['ASTRAML_HYPERPARAMS'] ?? ''), assignment.spec['hyperparams']);
  });

  test('says when the timeout is, and shows no GPU where there is none', () => {
    assert.equal(env()['ASTRAML_DEADLINE'], '1060');
    assert.equal(env({ timeoutSeconds: null })['ASTRAML_DEADLINE'], undefined);
    assert.equal(env({}, true)['CUDA_VISIBLE_DEVICES'], '');
    assert.equal(env({ gpus: [] })['CUDA_VISIBLE_DEVICES'], '');
    assert.equal(env({ gpus: [] })['ASTRAML_GPUS'], '0');
    assert.equal(env()['ASTRAML_ATTEMPT'], '2');
  });
});

test('processes that were killed for want of memory are counted where the kernel says so', async () => {
  const root = mkdtempSync(join(tmpdir(), 'cgroup-'));
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  const count = () => countOomKills({ proc: join(root, 'proc'), cgroups: join(root, 'cgroup') });
  assert.equal(await count(), null);
  write('proc/self/cgroup', '4:cpu,memory:/job\n0::/\n');
  write('cgroup/memory/job/memory.oom_control', 'oom_kill_disable 0\nunder_oom 0\noom_kill 2\n');
  assert.equal(await count(), 2, 'version 1');
  write('proc/self/cgroup', '0::/of/the/host\n');
  write('cgroup/memory.events', 'low 0\noom 1\noom_kill 3\noom_group_kill 0\n');
  assert.equal(await count(), 3, 'version 2, in a container');
  write('cgroup/of/the/host/memory.events', 'oom 1\noom_kill 4\n');
  assert.equal(await count(), 4);
  rmSync(root, { recursive: true });
});
