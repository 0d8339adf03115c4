// The uplink while the database takes nothing, and while a stream takes nothing, on real processes: what stands on it grows
// with the logarithm of the time and then by a batch each 30 s, memory stays bounded, and `/readyz` tells what is wrong.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, suite, test, type TestContext } from 'node:test';
import { Redis } from 'ioredis';
import { channels, uplinkStreams } from '../../src/bus/bus.ts';
import { newTokenText } from '../../src/project/token.ts';
import { skipUnless } from '../support/absent.ts';
import { type Child, spawnNode } from '../support/child.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { type RedisServer, startRedis } from '../support/redis.ts';
import { newSecretKeys } from '../support/secret-keys.ts';
import { until } from '../support/until.ts';

const attempts = 10;
/** Stands for a second: ten minutes are twelve seconds. */
const resendMs = 20;
const outageMs = 600 * resendMs;
const batchBytes = 256 * 1024;
const mostBytes = 256 * 1024 ** 2;
const senders = resolve(import.meta.dirname, '../support/uplink-senders.ts');

/** Sends of one attempt until then, at most: at 0, 1, 3, 7, 15 and 31 pauses, then each 30. */
function sendsUntil(ms: number): number {
  const pauses = ms / resendMs;
  return pauses < 31 ? 1 + Math.floor(Math.log2(pauses + 1)) : 6 + Math.floor((pauses - 31) / 30);
}

function residentBytes(child: Child): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1024;
}

const mib = (bytes: number) => `${(bytes / 1024 ** 2).toFixed(0)} MiB`;

suite('the uplink', { ...skipUnless('own postgres', 'own redis'), timeout: 280_000 }, () => {
  let postgres: PostgresServer;
  let redis: RedisServer;
  let stranger: Redis;
  let databaseUrl: string;
  let gateway: Child;
  let url: string;
  const folder = mkdtempSync(join(tmpdir(), 'senders-'));
  const ready = async () => (await (await fetch(`${url}/readyz`)).json()) as { status: string; uplink?: string };

  before(
    async () => {
      [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
      databaseUrl = (await createDatabase(postgres)).url;
      stranger = new Redis(redis.url);
      gateway = spawnNode([resolve(import.meta.dirname, '../../bin/astraml.mjs'), 'serve'], {
        env: {
          DATABASE_URL: databaseUrl,
          REDIS_URL: redis.url,
          PORT: '0',
          ASTRAML_BOOTSTRAP_TOKEN: newTokenText(),
          ASTRAML_SECRET_KEYS: newSecretKeys('k1'),
          ASTRAML_METRICS_PORT: '0',
        },
      });
      [, url = ''] = await gateway.untilLine(/^listening on (\S+)$/, { timeoutMs: 120_000 });
    },
    { timeout: 200_000 },
  );
  after(async () => {
    stranger.disconnect();
    await gateway.stop();
    await Promise.all([postgres.stop(), redis.stop()]);
    rmSync(folder, { recursive: true, force: true });
    await expectNoLeaks();
  });

  test('that one sender closed is told by /readyz, and opened again by the gateway', { timeout: 200_000 }, async () => {
    await until(async () => (await ready()).uplink === 'open', { timeoutMs: 60_000 });
    await stranger.xadd(channels.uplink(1), '18446744073709551615-18446744073709551615', 'b', 'x');
    const isOpen = () => stranger.xadd(channels.uplink(1), '*', 'b', 'x').then(() => true, () => false); // prettier-ignore
    await until(isOpen, { timeoutMs: 60_000, everyMs: 200, what: 'a stream that takes entries again' });
    await stranger.del(channels.uplink(0));
    await stranger.set(channels.uplink(0), 'junk');
    const isNamed = async () => {
      const { status, uplink } = await ready();
      return status === 'degraded' && /^astraml:uplink:0 holds something that is no stream/.test(uplink ?? '');
    };
    await until(isNamed, { timeoutMs: 60_000, what: 'the name of the stream in /readyz' });
    await stranger.xadd(channels.uplink(1), '*', 'b', 'x');
    const isRead = async () => (await stranger.xlen(channels.uplink(1))) === 0;
    await until(isRead, { timeoutMs: 60_000, what: 'the other streams are read' });
    await stranger.del(channels.uplink(0));
    await until(async () => (await ready()).status === 'ready', { timeoutMs: 60_000, what: 'a gateway that is ready' });
  });

  const grows = async (t: TestContext, own: string, args: string[], measure: (child: Child) => Promise<number[]>) => {
    const child = spawnNode([senders, mkdtempSync(join(folder, own)), String(resendMs), ...args]);
    try {
      await child.untilLine(/^idle$/, { timeoutMs: 120_000 });
      const idle = await measure(child);
      await postgres.kill();
      child.kill('SIGUSR2');
      const most = idle.map(() => 0);
      let copies = 0;
      for (let at = 0, seen = 0; at < outageMs;) {
        const samples = await until(
          () => {
            const all = [...child.output().matchAll(/^sample (.*)$/gm)];
            return all.length > seen && all;
          },
          { timeoutMs: 60_000, what: 'another sample' },
        );
        seen = samples.length;
        const sample = JSON.parse(samples.at(-1)?.[1] ?? '') as { ms: number; copies: number; ageMs: number };
        ({ ms: at, copies } = sample);
        const bytes = (await measure(child)).map((value, n) => value - (idle[n] ?? 0));
        bytes.forEach((value, n) => (most[n] = Math.max(most[n] ?? 0, value)));
        t.diagnostic(`${Math.round(at / resendMs)} s: ${copies} copies, ${bytes.map(mib).join(', ')}, oldest ${Math.round(sample.ageMs / resendMs)} s`); // prettier-ignore
        // They are counted a moment after the clock was read; ten seconds of the schedule are 200 ms here.
        const counted = attempts * sendsUntil(at + 10 * resendMs);
        assert.ok(copies <= counted, `${copies} copies after ${at / resendMs} s`);
        assert.ok(sample.ageMs <= at + 1_000 && sample.ageMs >= at - 5_000, 'the age of the oldest is told');
      }
      assert.ok(copies > 10 * attempts, `${copies} copies: they were sent again`);
      for (const bytes of most) assert.ok(bytes < mostBytes, mib(bytes));
    } finally {
      await child.stop();
      await postgres.restart();
    }
  };

  test(
    'over Redis holds 25 batches an attempt after ten minutes, and the gateway no more than it took',
    { timeout: 120_000 },
    async (t) => {
      const measure = async () => {
        const used = /used_memory:(\d+)/.exec(await stranger.info('memory'))?.[1];
        return [Number(used), residentBytes(gateway)];
      };
      t.diagnostic('copies, memory above idle of Redis and of the gateway, at 1/50 of the time');
      await grows(t, 'redis-', [redis.url, databaseUrl], measure);
      assert.ok(attempts * sendsUntil(outageMs) * batchBytes < mostBytes / 3);
      const isEmpty = async () => {
        const lengths = Array.from({ length: uplinkStreams }, (_, stream) => stranger.xlen(channels.uplink(stream)));
        return (await Promise.all(lengths)).every((length) => length === 0);
      };
      await until(isEmpty, { timeoutMs: 120_000, what: 'the streams are read to their ends' });
    },
  );

  test('in one process holds no more, with the senders and the intake beside it', { timeout: 200_000 }, async (t) => {
    t.diagnostic('copies, memory above idle of the process, at 1/50 of the time');
    await grows(t, 'memory-', ['', databaseUrl], async (child) => [residentBytes(child)]);
  });
});
