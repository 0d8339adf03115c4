// Supervisors of an earlier life of the runner, when what it finds of them is not what it hopes for.
import { expectNoLeaks } from './support/leaks.ts';
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { enterWorkDir, findSupervisors, socketPath } from '../src/agent/detached.ts';

const home = process.cwd();
const folder = mkdtempSync(join(tmpdir(), 'detached-'));
enterWorkDir(folder);
after(async () => {
  process.chdir(home);
  rmSync(folder, { recursive: true, force: true });
  await expectNoLeaks();
});

test('one that ends just when it is found holds up no start, and its socket goes', { timeout: 10_000 }, async () => {
  const ending = createServer((socket) => socket.destroy()).listen(socketPath('att_ending'));
  await once(ending, 'listening');
  writeFileSync(socketPath('att_dead'), '');
  assert.deepEqual(await findSupervisors(), []);
  ending.close();
  assert.deepEqual(
    ['att_ending', 'att_dead'].map((name) => existsSync(socketPath(name))),
    [false, false],
  );
});

test('one that lives is found with what it says of itself, and is over when its socket closes', async () => {
  const server = createServer((socket) => {
    socket.write('{"attemptId":"att_lives","gpus":[2]}\n');
    socket.resume().once('data', () => socket.end());
  }).listen(socketPath('att_lives'));
  await once(server, 'listening');
  const [found, ...others] = await findSupervisors();
  assert.ok(found);
  assert.deepEqual([found.attemptId, found.gpus, others], ['att_lives', [2], []]);
  found.stop('DRAINED');
  await found.done;
  server.close();
});
