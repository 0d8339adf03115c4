// A uid for each project: who may have it, which numbers, and that the runner's secrets leave its environment.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { ProjectUsers, readUidRange } from '../../src/agent/user.ts';
import { skipUnless } from '../support/absent.ts';
import { spawnNode } from '../support/child.ts';
import { binary } from '../support/cli.ts';

after(() => expectNoLeaks());

suite('--isolate users', () => {
  const start = (env: Record<string, string | undefined>, ...args: string[]) =>
    spawnNode([binary, 'runner', 'start', ...args], {
      env: { ASTRAML_URL: 'http://127.0.0.1:1', ASTRAML_RUNNER_TOKEN: 'x'.repeat(40), ...env },
    });
  const outputOf = async (env: Record<string, string | undefined>, ...args: string[]) => {
    const folder = mkdtempSync(join(tmpdir(), 'refused-'));
    const child = start(env, '--work-dir', folder, ...args);
    const { code } = await child.untilEnd({ timeoutMs: 60_000 });
    rmSync(folder, { recursive: true });
    return [code, child.output()] as const;
  };

  test('takes a range of numbers that no account has', () => {
    assert.deepEqual(readUidRange('70000-99999'), { first: 70_000, last: 99_999 });
    for (const text of ['', '0-10', '70000', '9-8', '99999-70000', '70000-99999 ', 'a-b', '-1-5'])
      assert.equal(readUidRange(text), undefined, text);
  });

  test('is refused with a sentence for anything else', async () => {
    const [code, output] = await outputOf({}, '--isolate', 'rooms');
    assert.equal(code, 2);
    assert.match(output, /--isolate takes users, got "rooms"/);
    const [other, range] = await outputOf({ ASTRAML_RUNNER_UIDS: '0-5' }, '--isolate', 'users');
    assert.equal(other, 2);
    assert.match(range, /ASTRAML_RUNNER_UIDS takes a range .* got "0-5"/);
  });

  test('is refused to whoever is not root', skipUnless('own uids'), () => {
    const folder = mkdtempSync(join(tmpdir(), 'plain-'));
    const source = `import('${join(import.meta.dirname, '../../src/agent/user.ts')}').then(({ ProjectUsers }) => new ProjectUsers('${folder}', { first: 70000, last: 70001 }))`;
    const args = ['--reuid=65534', '--regid=65534', '--clear-groups', '--', process.execPath, '-e', source];
    const { status, stderr } = spawnSync('setpriv', args, { encoding: 'utf8' });
    rmSync(folder, { recursive: true });
    assert.notEqual(status, 0);
    assert.match(stderr, /A uid for each project takes a runner on Linux that was started as root/);
  });

  test('gives each project one uid for good, and says when none is left', skipUnless('own uids'), () => {
    const folder = mkdtempSync(join(tmpdir(), 'users-'));
    const range = { first: 70_000, last: 70_002 };
    const uidsOf = (...projects: string[]) => projects.map((id) => new ProjectUsers(folder, range).userOf(id).uid);
    assert.deepEqual(uidsOf('a', 'b', 'a', 'c', 'b'), [70_000, 70_001, 70_000, 70_002, 70_001]);
    assert.throws(() => uidsOf('d'), /All uids from 70000 to 70002 are taken by other projects/);
    assert.deepEqual(uidsOf('c'), [70_002]);
    rmSync(folder, { recursive: true });
  });

  test('needs a work folder that other users can pass through to', skipUnless('own uids'), () => {
    const closed = mkdtempSync(join(tmpdir(), 'closed-')); // 0700
    assert.throws(
      () => new ProjectUsers(join(closed, 'work'), { first: 70_000, last: 70_001 }),
      /Other users cannot pass through to .*: all folders above it need mode 711/,
    );
    rmSync(closed, { recursive: true });
  });
});
