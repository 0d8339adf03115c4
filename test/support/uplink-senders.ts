// Ten attempts that print 4 MB/s together, in a process of their own: over Redis, or over an
// in-memory bus with an intake whose database the test ends. `node uplink-senders.ts <folder>
// <resendMs> <REDIS_URL or ''> <DATABASE_URL>`; each line on stdout is a sample.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Spool } from '../../src/agent/spool.ts';
import { RecordSender } from '../../src/agent/record-sender.ts';
import { memoryBus } from '../../src/bus/memory.ts';
import { redisBus } from '../../src/bus/redis.ts';
import { openDatabase } from '../../src/database/database.ts';
import { startConsumer } from '../../src/intake/consumer.ts';
import { maxBatchBytes, type RunnerRecord } from '../../src/protocol/record.ts';

const [folder = '', resendMs = '', redisUrl = '', databaseUrl = ''] = process.argv.slice(2);
const attempts = 10;
const bytesPerSecond = 4_000_000;
const everyMs = 100;
const text = 'x'.repeat(16_000);
const line = (): RunnerRecord => ({ type: 'line', time: Date.now(), stream: 'STDOUT', text });

const bus = redisUrl ? redisBus(redisUrl) : memoryBus();
if (!redisUrl) {
  const database = await openDatabase({ url: databaseUrl, dataDir: '' });
  startConsumer({ database, bus }, { leaseSeconds: 30, maxMetricNames: Infinity, report: () => {} });
}
await sleep(1_000);
console.log('idle');
// The test ends the database now, then sends SIGUSR2.
await new Promise((resolve) => process.once('SIGUSR2', resolve));

let copies = 0;
const senders = await Promise.all(
  Array.from({ length: attempts }, async (_, n) => {
    const own = join(folder, `attempt-${n}`);
    mkdirSync(own);
    const spool = await Spool.create(own);
    // Fills one whole batch, which is then sent again and again: an attempt without records would
    // send heartbeats.
    for (let sent = 0; sent < 2 * maxBatchBytes; sent += text.length) spool.append(line());
    const uplink = new RecordSender({
      attemptId: `att_${n}`,
      leaseToken: 'lease',
      spool,
      append: async (stream, batch) => {
        copies++;
        await bus.append(stream, batch);
      },
      renew: () => Promise.reject(new Error('away')),
      heartbeatMs: 600_000,
      resendMs: Number(resendMs),
      onDirective: () => {},
    });
    return { spool, uplink };
  }),
);
const startedAt = performance.now();
for (let tick = 1; ; tick++) {
  for (const { spool, uplink } of senders) {
    for (let sent = 0; sent < (bytesPerSecond * everyMs) / 1000 / attempts; sent += text.length) {
      spool.append(line());
    }
    uplink.notify();
  }
  if (tick % 5 === 0) {
    const ms = Math.round(performance.now() - startedAt);
    const oldest = (await bus.oldest())?.getTime() ?? Date.now();
    console.log(`sample ${JSON.stringify({ ms, copies, ageMs: Date.now() - oldest })}`);
  }
  await sleep(everyMs);
}
