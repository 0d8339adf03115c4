// The users of Redis in docker/redis.acl, on a real Redis that was started as docker-compose.yml starts it: a runner may
// do what it needs and no more.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Redis } from 'ioredis';
import { channels, maxEntryBytes, NotAppended, uplinkStreams } from '../../src/bus/bus.ts';
import { redisBus } from '../../src/bus/redis.ts';
import { skipUnless } from '../support/absent.ts';
import { readText } from '../support/compose.ts';
import { type ComposeRedis, startComposeRedis } from '../support/deployment.ts';
import { until } from '../support/until.ts';

describe('the users of Redis', skipUnless('own redis'), () => {
  let redis: ComposeRedis;
  const connections: Redis[] = [];
  const connect = (url: string) => {
    const connection = new Redis(url, { enableReadyCheck: false, disableClientInfo: true, retryStrategy: null });
    connection.on('error', () => {}); // said again by the command
    connections.push(connection);
    return connection;
  };
  before(async () => void (redis = await startComposeRedis()));
  after(async () => {
    for (const connection of connections) connection.disconnect();
    await redis?.stop();
    await expectNoLeaks();
  });

  test('nobody comes in without a name', async () => {
    const nobody = connect(redis.url());
    await assert.rejects(nobody.ping(), /NOAUTH/);
    await assert.rejects(connect(redis.url('runner', 'wrong')).ping(), /WRONGPASS|NOAUTH/);
  });

  test('what a runner and a gateway do over the bus is allowed', async () => {
    const [runner, gateway, another] = ['runner', 'gateway', 'gateway'].map((user) => redisBus(redis.url(user)));
    assert.ok(runner && gateway && another);
    try {
      const heard: string[] = [];
      await runner.subscribe(channels.runner('run_1'), (message) => heard.push(message));
      await another.subscribe(channels.job('job_1'), (message) => heard.push(message));
      for (let stream = 0; stream < uplinkStreams; stream++) await runner.append(stream, `batch ${stream}`);
      const { signal } = new AbortController();
      const entries = await gateway.take('one', { max: 10, blockMs: 1_000, signal });
      assert.deepEqual(entries.map(({ batch }) => batch.toString()).sort(), [
        'batch 0',
        'batch 1',
        'batch 2',
        'batch 3',
      ]);
      await gateway.done(entries);
      assert.deepEqual(await another.take('two', { max: 10, blockMs: 50, signal }), []);
      await gateway.publish(channels.runner('run_1'), 'committed');
      await gateway.publish(channels.job('job_1'), 'look again');
      await until(() => heard.length === 2);
      assert.deepEqual(heard.sort(), ['committed', 'look again']);
    } finally {
      await Promise.all([runner, gateway, another].map((bus) => bus.close()));
    }
  });

  test('a runner reads nothing, speaks for no gateway and hears no job', async () => {
    const runner = connect(redis.url('runner'));
    const stream = 'astraml:uplink:0';
    const refused: [string, ...string[]][] = [
      ['get', stream],
      ['keys', '*'],
      ['xread', 'STREAMS', stream, '0'],
      ['xrange', stream, '-', '+'],
      ['xdel', stream, '0-1'],
      ['xadd', 'astraml:other', '*', 'batch', '{}'],
      // any other key would stand in memory for ever
      ['xadd', 'astraml:uplink:junk', '*', 'b', 'x'],
      ['xadd', `astraml:uplink:${uplinkStreams}`, '*', 'b', 'x'],
      ['xadd', 'astraml:uplink:00', '*', 'b', 'x'],
      ['xadd', 'astraml:uplink:', '*', 'b', 'x'],
      ['xadd', 'elsewhere', '*', 'batch', '{}'],
      ['set', stream, ''],
      ['del', stream],
      ['flushall'],
      ['config', 'get', '*'],
      ['acl', 'list'],
      ['eval', 'return 1', '0'],
      ['publish', channels.work, ''],
      ['publish', channels.job('job_1'), ''],
      // an acknowledgement would make another runner forget records that nobody stored
      ['publish', channels.runner('run_2'), '{}'],
      ['subscribe', channels.job('job_1')],
      ['psubscribe', 'astraml:*'],
    ];
    for (const [command, ...args] of refused) {
      await assert.rejects(runner.call(command, ...args), /NOPERM/, [command, ...args].join(' '));
    }
  });

  test('the largest entry is taken, and a larger argument by no user', async () => {
    const [runner, gateway] = ['runner', 'gateway'].map((user) => redisBus(redis.url(user)));
    assert.ok(runner && gateway);
    try {
      const largest = 'x'.repeat(maxEntryBytes);
      await runner.append(1, largest);
      const { signal } = new AbortController();
      const entries = await gateway.take('one', { max: 10, blockMs: 5_000, signal });
      assert.deepEqual(entries.map(({ batch }) => batch.length), [maxEntryBytes]); // prettier-ignore
      await gateway.done(entries);
      await gateway.publish(channels.job('job_1'), largest);
      await assert.rejects(gateway.publish(channels.job('job_1'), `${largest}x`), /1048576/);
      await gateway.ping();
    } finally {
      await Promise.all([runner, gateway].map((bus) => bus.close()));
    }
    const hostile = connect(redis.url('runner'));
    await assert.rejects(hostile.xadd(channels.uplink(0), '*', 'b', 'x'.repeat(maxEntryBytes + 1)));
  });

  test('a runner that uses up the ids of a stream stops it until what stands there is stored, and no longer', async () => {
    const [runner, gateway] = ['runner', 'gateway'].map((user) => redisBus(redis.url(user)));
    assert.ok(runner && gateway);
    try {
      const lastId = '18446744073709551615-18446744073709551615';
      await connect(redis.url('runner')).xadd(channels.uplink(2), lastId, 'b', 'x');
      await assert.rejects(runner.append(2, 'batch'), NotAppended);
      await assert.rejects(gateway.probe(), /astraml:uplink:2 .*1 entries/);
      const { signal } = new AbortController();
      await gateway.done(await gateway.take('one', { max: 10, blockMs: 5_000, signal }));
      await gateway.probe();
      await runner.append(2, 'batch');
      assert.ok(await gateway.oldest());
      await gateway.done(await gateway.take('one', { max: 10, blockMs: 5_000, signal }));
      assert.equal(await gateway.oldest(), null);
    } finally {
      await Promise.all([runner, gateway].map((bus) => bus.close()));
    }
  });

  test('the keys of the uplink are named, not matched', () => {
    const users = readText('docker/redis.acl').split('\n').filter((line) => line.includes(' on ')); // prettier-ignore
    const keys = Array.from({ length: uplinkStreams }, (_, stream) => `~${channels.uplink(stream)}`);
    assert.equal(users.length, 2);
    for (const user of users) assert.deepEqual(user.match(/~\S+/g), keys);
  });

  test('a gateway has the keys and channels of AstraML only', async () => {
    const gateway = connect(redis.url('gateway'));
    await assert.rejects(gateway.xadd('elsewhere', '*', 'batch', '{}'), /NOPERM/);
    await assert.rejects(gateway.publish('elsewhere', ''), /NOPERM/);
    await assert.rejects(gateway.flushall(), /NOPERM/);
  });
});
