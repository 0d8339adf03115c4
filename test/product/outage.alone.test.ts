// What is killed under a job costs it nothing: a gateway, the runner, Redis (which comes back empty) and Postgres, one
// after another, while the job runs and somebody watches. The submitter uses one gateway, the watcher the other.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { skipUnless } from '../support/absent.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { createProject, followLog, jobState, script, submit } from '../support/stack.ts';

const skip = { ...skipUnless('own postgres'), ...skipUnless('own redis') };

suite('a job on two gateways and a runner elsewhere', skip, () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await startCluster({ gateways: 2 });
    await createProject(cluster.client(0), 'p-outage');
  });
  after(() => cluster.stop());

  /** Prints a line and a point every 20 ms, and the pid of its process first. */
  const talker = (lines: number) =>
    script(`
      console.log('pid ' + process.pid);
      for (let n = 1; n <= ${lines}; n++) {
        console.log('line ' + n);
        console.log('::astraml ' + JSON.stringify({ step: n, value: n }));
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    `);

  type Batch = { lines: { seq: number; text: string; stream: string }[]; done: boolean };
  const query = `subscription ($jobId: ID!, $after: String) {
    jobLogs(jobId: $jobId, after: $after) { lines { seq text stream } endCursor done }
  }`;

  async function watchThrough(lines: number, trouble: (jobId: string) => Promise<void>): Promise<void> {
    const { id } = await submit(cluster.client(0), 'p-outage', { command: talker(lines) });
    const seen: Batch['lines'] = [];
    const watching = (async () => {
      for await (const batch of cluster.client(1).follow<Batch>(query, { jobId: id })) seen.push(...batch.lines);
    })();
    const deadline = Date.now() + 20_000;
    while (!seen.some(({ text }) => text === 'line 20') && Date.now() < deadline) await sleep(20);
    await trouble(id);
    await watching;
    const { state, stateReason } = await jobState(cluster.client(1), id);
    assert.equal(state, 'SUCCEEDED', stateReason?.message);
    assert.deepEqual(
      seen.map(({ seq }) => seq),
      seen.map((_, index) => index + 1),
      'the watcher saw every number once, in order',
    );
    const printed = seen.filter(({ stream }) => stream === 'STDOUT').map(({ text }) => text);
    assert.deepEqual(
      printed.slice(1),
      Array.from({ length: lines }, (_, n) => `line ${n + 1}`),
    );
    assert.equal(printed.filter((text) => text.startsWith('pid ')).length, 1, 'it ran once');
    const { job } = await cluster.client(0).request<{
      job: { metrics: { count: number; windows: { nodes: { sum: number }[] } }[]; attempts: { number: number }[] };
    }>('query ($id: ID!) { job(id: $id) { attempts { number } metrics(names: ["value"]) { count windows(first: 100) { nodes { sum } } } } }', { id }, { repeatable: true });
    assert.equal(job.attempts.length, 1, 'in one attempt');
    assert.equal(job.metrics[0]?.count, lines);
    assert.equal(
      job.metrics[0].windows.nodes.reduce((total, { sum }) => total + sum, 0),
      (lines * (lines + 1)) / 2,
    );
  }

  test('runs without trouble', () => watchThrough(50, async () => {}));

  test('is seen to pass by whoever listens to Redis: wake-ups, acknowledgements, and what was committed', async () => {
    const listener = new Redis(cluster.redis.url);
    const heard = new Map<string, string[]>();
    listener.on('pmessage', (_pattern, channel: string, message: string) => {
      const kind = channel.split(':')[1] ?? '';
      heard.set(kind, [...(heard.get(kind) ?? []), message]);
    });
    await listener.psubscribe('astraml:*');
    try {
      await watchThrough(30, async () => {});
    } finally {
      await listener.quit();
    }
    assert.ok(
      heard.get('uplink')?.every((message) => message.length < 10),
      'a batch is announced without its content',
    );
    const committed =
      heard.get('runner')?.map((message) => (JSON.parse(message) as { committed?: number }).committed ?? 0) ?? [];
    assert.ok(Math.max(...committed) > 60, 'every record is acknowledged');
    type JobMessage = { records?: { records?: { type: string; text?: string }[] }[] };
    const batches = heard.get('job')?.flatMap((message) => (JSON.parse(message) as JobMessage).records ?? []) ?? [];
    const records = batches.flatMap((batch) => batch.records ?? []);
    const lines = records.filter(({ type, text }) => type === 'line' && text?.startsWith('line '));
    assert.equal(lines.length, 30);
    assert.ok(heard.has('work'));
  });

  test('survives the kill of either gateway', () =>
    watchThrough(300, async () => {
      for (const index of [1, 0]) {
        cluster.gateways[index]?.kill('SIGKILL');
        await sleep(500);
        await cluster.startGateway(index);
      }
    }));

  test('survives the kill of its runner, which finds it again', () =>
    watchThrough(400, async (first) => {
      cluster.runner().kill('SIGKILL');
      await sleep(1_000);
      await cluster.startRunner();
      // Its only slot is taken: another job waits for the end of the first, and runs then.
      const { id: second } = await submit(cluster.client(0), 'p-outage', { command: script('') });
      const states = async () => [
        (await jobState(cluster.client(0), first)).state,
        (await jobState(cluster.client(0), second)).state,
      ];
      for (let [one, two] = await states(); one === 'RUNNING'; [one, two] = await states()) {
        assert.equal(two, 'QUEUED');
        await sleep(100);
      }
      await followLog(cluster.client(1), second);
      assert.equal((await jobState(cluster.client(0), second)).state, 'SUCCEEDED');
    }));

  test('survives Redis, killed and restarted empty', () =>
    watchThrough(300, async () => {
      await cluster.redis.kill();
      await sleep(1_500);
      await cluster.redis.restart();
    }));

  test('survives Postgres, killed and restarted', () =>
    watchThrough(300, async () => {
      await cluster.postgres.kill();
      await sleep(1_500);
      await cluster.postgres.restart();
    }));

  test('leaves no unhandled failure in any process', () => {
    assert.doesNotMatch(cluster.output(), /UnhandledPromise|unhandledRejection|"bug"|triggerUncaughtException/);
  });
});
