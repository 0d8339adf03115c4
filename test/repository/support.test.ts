// What the other tests stand on: servers of our own that start, answer, and are gone; a run that overlooks nothing.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, suite, test } from 'node:test';
import { Redis } from 'ioredis';
import postgres from 'postgres';
import { expectNoLeaks } from '../support/leaks.ts';
import { isListed, skipUnless } from '../support/absent.ts';
import { spawnNode } from '../support/child.ts';
import { createDatabase, startPostgres } from '../support/postgres.ts';
import { isAlive, listChildren } from '../support/processes.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const tests = resolve(import.meta.dirname, '..');

after(() => expectNoLeaks());

suite('Postgres', () => {
  test('gives each test a database of its own', skipUnless('postgres'), async () => {
    const server = await startPostgres();
    const template = await createDatabase(server);
    await query(template.url, 'create table thing as select 1 as number');
    const [empty, copy] = [await createDatabase(server), await createDatabase(server, { template })];
    assert.deepEqual(await query(copy.url, 'select number from thing'), [{ number: 1 }]);
    await assert.rejects(query(empty.url, 'select number from thing'), /does not exist/);
    for (const database of [template, empty, copy]) await database.drop();
    await server.stop();
  });

  test('keeps what was committed through a kill, and is gone after stop', skipUnless('own postgres'), async () => {
    const server = await startPostgres({ durable: true });
    const pid = server.pid() ?? 0;
    const processes = [pid, ...listChildren(pid)];
    await query(server.url, 'create table thing as select 1 as number');
    await server.kill();
    assert.deepEqual(processes.filter(isAlive), []);
    await assert.rejects(query(server.url, 'select 1'));
    await server.restart();
    assert.deepEqual(await query(server.url, 'select number from thing'), [{ number: 1 }]);
    const again = server.pid() ?? 0;
    await server.stop();
    await server.stop();
    assert.equal(isAlive(again), false);
  });
});

suite('Redis', () => {
  test('keeps what was answered through a kill, when asked to', skipUnless('own redis'), async () => {
    const server = await startRedis({ persistence: 'aof always' });
    await command(server.url, (redis) => redis.set('name', 'value'));
    await server.kill();
    await server.restart();
    assert.equal(await command(server.url, (redis) => redis.get('name')), 'value');
    const pid = server.pid() ?? 0;
    await server.stop();
    assert.equal(isAlive(pid), false);
  });

  test('forgets everything by default', skipUnless('own redis'), async () => {
    const server = await startRedis();
    await command(server.url, (redis) => redis.set('name', 'value'));
    await server.restart();
    assert.equal(await command(server.url, (redis) => redis.get('name')), null);
    await server.stop();
  });
});

suite('A process that goes away', () => {
  const needs = skipUnless('own postgres', 'own redis');

  test('takes its servers with it, also when killed', needs, async () => {
    const folder = temporaryFolder();
    const child = spawnNode([fixture('starts-servers.ts')], { env: { TMPDIR: folder } });
    const pids = serversOf(await child.untilLine(/^\{"pids".*/, { timeoutMs: 60_000 }));
    assert.equal(pids.every(isAlive), true);
    child.kill('SIGKILL');
    await until(() => !pids.some(isAlive), { timeoutMs: 15_000, what: 'the end of the servers' });
    await until(() => readdirSync(folder).length === 0, { timeoutMs: 15_000, what: 'the end of their folders' });
    rmSync(folder, { recursive: true });
  });

  test('fails when it forgot to stop them', needs, async () => {
    const folder = temporaryFolder();
    const child = spawnNode([fixture('starts-servers.ts'), 'forget'], { env: { TMPDIR: folder } });
    const ended = await child.untilEnd({ timeoutMs: 60_000 });
    assert.equal(ended.code, 1);
    assert.match(child.output(), /left running at the end of the process: Postgres .*, Redis/);
    await until(() => readdirSync(folder).length === 0, { timeoutMs: 15_000, what: 'the end of their folders' });
    rmSync(folder, { recursive: true });
  });
});

suite('A run', () => {
  test('fails when a process or a temporary file is left', skipUnless('linux /proc'), async () => {
    const { code, output } = await runTests('leaves-a-process.ts', { ASTRAML_TEST_SETTLE_MS: '1000' });
    assert.equal(code, 1);
    const pid = Number(/a process was left: (\d+) sleep 61/.exec(output)?.[1]);
    assert.equal(isAlive(pid), false, 'it was ended by the run');
    assert.match(output, /a temporary file was left: forgotten-/);
    assert.match(output, /^1 passed, 2 failed, 0 skipped$/m);
  });

  test('fails under CI=true when a skip is not listed, and says it otherwise', async () => {
    const inCi = await runTests('skips.ts', { CI: 'true' });
    assert.equal(inCi.code, 1);
    assert.match(inCi.output, /does not list: is skipped \(not today\)/);
    const elsewhere = await runTests('skips.ts', { CI: undefined });
    assert.equal(elsewhere.code, 0);
    assert.match(elsewhere.output, /skipped: is skipped \(not today\)/);
    assert.match(elsewhere.output, /^ℹ skipped 1\n[^]*^1 passed, 0 failed, 1 skipped$/m);
  });

  test('ends a file that never ends, and fails', async () => {
    const { code, output } = await runTests('hangs.ts', { ASTRAML_TEST_FILE_TIMEOUT_MS: '1500' });
    assert.equal(code, 1);
    assert.match(output, /not ended within 1500 ms, and killed: .*hangs\.ts/);
  });

  test('fails when nothing ran', async () => {
    const { code, output } = await runTests('only-skips.ts');
    assert.equal(code, 1);
    assert.match(output, /^0 passed, 1 failed, 1 skipped$/m);
  });
});

test('a reason to skip is listed as it is said', () => {
  for (const name of ['gpu', 'chromium', 'postgres'] as const) {
    const { skip } = skipUnless(name);
    if (skip) assert.equal(isListed(skip), true);
  }
  assert.equal(isListed('not today'), false);
});

test('a socket left open is named', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  await assert.rejects(expectNoLeaks({ timeoutMs: 100 }), /left open: 1 × TCPServerWrap/);
  server.close();
  await expectNoLeaks();
});

test('waiting for a line ends when the child does', async () => {
  const child = spawnNode(['-e', 'process.stdout.write("first\\nlast"); process.exitCode = 3']);
  await child.untilLine(/^first$/);
  await assert.rejects(child.untilLine(/never/), /the child ended \(exit 3\) without a line \/never\//);
  assert.equal(child.output(), 'first\nlast');
});

async function query(url: string, text: string): Promise<unknown[]> {
  const sql = postgres(url, { max: 1, connect_timeout: 5, onnotice: () => {} });
  try {
    return [...(await sql.unsafe(text))];
  } finally {
    await sql.end({ timeout: 5 });
  }
}

async function command<T>(url: string, use: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url, { maxRetriesPerRequest: 1 });
  try {
    return await use(redis);
  } finally {
    redis.disconnect();
  }
}

async function runTests(
  file: string,
  env: Record<string, string | undefined> = {},
): Promise<{ code: number | null; output: string }> {
  const child = spawnNode([join(tests, 'run.ts'), fixture(file)], { env: { CI: undefined, ...env } });
  const { code } = await child.untilEnd({ timeoutMs: 60_000 });
  return { code, output: child.output() };
}

function serversOf(line: RegExpExecArray): number[] {
  const parsed: unknown = JSON.parse(line[0]);
  assert.ok(typeof parsed === 'object' && parsed !== null && 'pids' in parsed && Array.isArray(parsed.pids));
  return parsed.pids.map(Number);
}

// Another user (that of Postgres) has to get through it.
function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'support-'));
  chmodSync(folder, 0o755);
  return folder;
}

function fixture(name: string): string {
  return join(tests, 'support/fixtures', name);
}
