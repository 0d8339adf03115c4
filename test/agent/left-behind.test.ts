// What a job leaves behind however it hides: nothing of it runs when the attempt is over, and its log names it.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlGroup, findGroupFolder } from '../../src/agent/control-group.ts';
import { processExecutor } from '../../src/agent/process.ts';
import { skipUnless } from '../support/absent.ts';
import { startAttempt } from '../support/attempt.ts';
import { isAlive, listProcesses } from '../support/processes.ts';
import { until } from '../support/until.ts';

const root = mkdtempSync(join(tmpdir(), 'left-'));
const groupFolder = await findGroupFolder();
after(async () => {
  rmSync(root, { recursive: true, force: true });
  await expectNoLeaks();
});

/** Forks a child that hides in these ways and prints its pid to the file that is named first. */
const hiding = `
use POSIX;
my ($file, $lingers, @ways) = @ARGV;
my %does = (
  setsid => sub { POSIX::setsid() },
  fork => sub { exit 0 if fork },
  title => sub { $0 = 'ray::IDLE' . (' ' x 8000) },
  environment => sub { $ENV{HIDING} = 1; exec('/usr/bin/env', '-i', $^X, '-e', $::sleeper, $file) },
  term => sub { $SIG{TERM} = 'IGNORE' },
);
our $sleeper = q{open(F, '>', "$ARGV[0].new"); print F $$; close F; rename("$ARGV[0].new", $ARGV[0]); sleep 300 for 1 .. 9};
if (my $child = fork) { print "parent done\\n"; select(undef, undef, undef, $lingers); exit 0 }
open(STDOUT, '>/dev/null'); open(STDERR, '>/dev/null');
# Each way is taken while its parent is looked at, when the command lingers.
for (@ways) { $does{$_}->(); select(undef, undef, undef, $lingers / 5) }
@ARGV = ($file); eval $sleeper;
`;
writeFileSync(join(root, 'hiding.pl'), hiding);

const everyWay = ['setsid', 'fork', 'term', 'title'];
const ways = [['setsid'], ['setsid', 'fork'], ['title'], ['setsid', 'environment'], ['term'], everyWay];

function hide(kind: string | null, hidingWays: string[], lingers: number) {
  const pidFile = join(root, `pid-${hidingWays.join('-')}-${lingers}-${kind ? 'group' : 'none'}`);
  const attempt = startAttempt({
    workDir: root,
    executor: processExecutor(kind),
    command: ['perl', join(root, 'hiding.pl'), pidFile, String(lingers), ...hidingWays],
    graceMs: 300,
  });
  return { attempt, pidOf: () => pidIn(pidFile) };
}

async function pidIn(file: string): Promise<number> {
  await until(() => existsSync(file), { what: 'its pid' });
  return Number(readFileSync(file, 'utf8'));
}

suite('in a control group nothing is left of what', skipUnless('cgroup v2'), () => {
  for (const hidingWays of ways) {
    test(`takes the ways ${hidingWays.join(', ')} and whose parent is gone at once`, async () => {
      const { attempt, pidOf } = hide(groupFolder, hidingWays, 0.05);
      await attempt.supervisor.done;
      const pid = await pidOf();
      assert.equal(isAlive(pid), false);
      assert.deepEqual([attempt.finished().outcome, attempt.finished().exitCode], ['EXITED', 0]);
      const text = attempt.lines('SYSTEM').join('\n');
      assert.match(text, new RegExp(`left processes behind, which are ended now: .*\\b${pid} \\(.+\\)`));
    });
  }

  test('made a group of its own inside, and the groups go with the attempt', async () => {
    const group = `${groupFolder}/att_nested`;
    const attempt = startAttempt({
      attemptId: 'att_nested',
      workDir: root,
      executor: processExecutor(groupFolder),
      command: [
        'sh',
        '-c',
        `mkdir -p ${group}/a/b; (echo 0 > ${group}/a/b/cgroup.procs; exec setsid sleep 300) & sleep 0.3`,
      ],
      graceMs: 300,
    });
    await attempt.supervisor.done;
    assert.match(attempt.lines('SYSTEM').join('\n'), /left processes behind.*\(sleep 300\)/);
    assert.equal(new ControlGroup(groupFolder ?? '', 'att_nested').isPopulated(), false);
    assert.deepEqual(
      listProcesses().filter(({ command }) => command === 'sleep 300'),
      [],
    );
    assert.equal(existsSync(group), false);
  });

  test('was left by a supervisor that was killed: the next life of the runner ends it by its group', async () => {
    const executor = processExecutor(groupFolder);
    const name = { attemptId: `att_stray_${process.pid}`, jobId: 'job_stray', attempt: '1' };
    const file = join(root, 'pid-stray');
    const running = await executor.start({
      ...name,
      command: ['perl', join(root, 'hiding.pl'), file, '0.05', 'setsid', 'environment'],
      env: { PATH: process.env['PATH'] ?? '' },
      cwd: root,
      onOutput() {},
    });
    await running.ended;
    const pid = await pidIn(file);
    assert.ok(isAlive(pid));
    assert.equal(await processExecutor(groupFolder).endStrays(name), 1);
    assert.equal(isAlive(pid), false);
    assert.equal(await running.isGone(), true);
  });
});

/** On a busy machine a second passes between two looks, and each way is taken for a fifth of this time. */
const lingersSeconds = 6;

suite('without a control group nothing is left of what', { ...skipUnless('linux /proc'), concurrency: true }, () => {
  for (const hidingWays of ways) {
    test(`takes the ways ${hidingWays.join(', ')} while its parent is looked at`, async () => {
      const { attempt, pidOf } = hide(null, hidingWays, lingersSeconds);
      await attempt.supervisor.done;
      assert.equal(isAlive(await pidOf()), false);
      assert.match(attempt.lines('SYSTEM').join('\n'), /left processes behind/);
    });
  }

  test('but one that leaves its session, environment and parent between two looks cannot be known', async (t) => {
    const { attempt, pidOf } = hide(null, ['setsid', 'environment'], 0);
    await attempt.supervisor.done;
    const pid = await pidOf();
    await sleep(100);
    t.diagnostic(isAlive(pid) ? 'it lives on' : 'a look came in time, and it was ended');
    if (isAlive(pid)) process.kill(pid, 'SIGKILL');
  });
});
