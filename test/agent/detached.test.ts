// Supervisors of an earlier life of the runner, when what it finds of them is not what it hopes for.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { enterWorkDir, findSupervisors, socketPath } from '../../src/agent/detached.ts';
import { until } from '../support/until.ts';

const home = process.cwd();
const folder = mkdtempSync(join(tmpdir(), 'detached-'));
enterWorkDir(folder);
after(async () => {
  process.chdir(home);
  rmSync(folder, { recursive: true, force: true });
  await expectNoLeaks();
});

test('one that ends just when it is found is over at once, and its socket goes', { timeout: 10_000 }, async () => {
  const ending = createServer((socket) => socket.destroy()).listen(socketPath('att_ending'));
  await once(ending, 'listening');
  writeFileSync(socketPath('att_dead'), '');
  const [found, ...others] = await findSupervisors();
  assert.deepEqual([found?.attemptId, others], ['att_ending', []]);
  await found?.done;
  ending.close();
  assert.deepEqual(
    ['att_ending', 'att_dead'].map((name) => existsSync(socketPath(name))),
    [false, false],
  );
});

test('one that stands still holds up no start and keeps its GPUs; it hears what it was told when it wakes', async () => {
  const source = `
    const server = require('node:net').createServer((socket) => socket.once('data', (data) => {
      console.log(data.toString());
      socket.end();
      server.close();
    }));
    server.listen(process.argv[1], () => console.log('listening'));`;
  const child = spawn(process.execPath, ['-e', source, socketPath('att_still')], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const heard = text(child.stdout);
  await until(() => existsSync(socketPath('att_still')), { what: 'it listens' });
  child.kill('SIGSTOP');
  const lively = createServer((socket) => socket.resume().once('data', () => socket.end()));
  await once(lively.listen(socketPath('att_lives')), 'listening');
  for (const [name, gpu] of [
    ['att_still', 1],
    ['att_lives', 2],
  ] as const) {
    mkdirSync(join('attempts', name), { recursive: true });
    writeFileSync(join('attempts', name, 'attempt.json'), JSON.stringify({ jobId: 'j', attempt: '1', gpus: [gpu] }));
  }
  const startedAt = performance.now();
  const found = await findSupervisors();
  assert.ok(performance.now() - startedAt < 2_000);
  const gpus = Object.fromEntries(found.map((attempt) => [attempt.attemptId, attempt.gpus]));
  assert.deepEqual(gpus, { att_still: [1], att_lives: [2] });
  for (const attempt of found) attempt.stop('DRAINED');
  await found.find(({ attemptId }) => attemptId === 'att_lives')?.done;
  lively.close();
  assert.ok(existsSync(socketPath('att_still')), 'it is not over');
  child.kill('SIGCONT');
  await found.find(({ attemptId }) => attemptId === 'att_still')?.done;
  assert.deepEqual((await heard).trim().split('\n'), ['listening', '{"type":"stop","outcome":"DRAINED"}']);
});
