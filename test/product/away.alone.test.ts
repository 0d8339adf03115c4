// A runner that is left alone, without a gateway or without Redis, for many leases: jobs train on as if nothing were, and
// everything arrives once, however much has gathered.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { skipUnless } from '../support/absent.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { listProcesses } from '../support/processes.ts';
import { createProject, followLog, jobState, type Line, script, submit } from '../support/stack.ts';
import { until } from '../support/until.ts';

const skip = { ...skipUnless('own postgres'), ...skipUnless('own redis'), ...skipUnless('linux /proc') };
const project = 'p-away';

type Attempts = { number: number; state: string; finishedAt: string | null; startedAt: string | null }[];

async function attemptsOf(cluster: Cluster, id: string): Promise<Attempts> {
  const query = 'query ($id: ID!) { job(id: $id) { attempts { number state startedAt finishedAt } } }';
  const { job } = await cluster.client(0).request<{ job: { attempts: Attempts } }>(query, { id }, { repeatable: true });
  return job.attempts;
}

const printed = (lines: Line[]) => lines.filter(({ stream }) => stream === 'STDOUT').map(({ text }) => text);

async function untilLine(cluster: Cluster, id: string, start: string): Promise<string> {
  const query = 'query ($id: ID!) { job(id: $id) { logs(first: 20) { nodes { text } } } }';
  return until(
    async () => {
      const { job } = await cluster.client(0).request<{ job: { logs: { nodes: { text: string }[] } } }>(query, { id });
      return job.logs.nodes.map(({ text }) => text).find((text) => text.startsWith(start));
    },
    { timeoutMs: 30_000, everyMs: 50, what: `a line ${start}` },
  );
}

suite('for many leases', skip, () => {
  const leaseSeconds = 3;
  /** An outage of an hour has 120 leases of 30 s, so 360 s are as many here; with another limit for a file, `run.ts`. */
  const awaySeconds = Number(process.env['ASTRAML_TEST_AWAY_SECONDS'] ?? 12);
  let cluster: Cluster;
  before(async () => {
    cluster = await startCluster({ gateways: 2, leaseSeconds });
    await createProject(cluster.client(0), project);
  });
  after(() => cluster.stop());

  /**
   * Steps of 5 ms, a line and a point each; it measures by itself how long they take, and says so at its end. SIGUSR2
   * begins and ends the time in which we are away.
   */
  const trainer = (steps: number) =>
    script(`
      const [near, away] = [[], []];
      let isAway = false;
      process.on('SIGUSR2', () => (isAway = !isAway));
      console.log('pid ' + process.pid);
      for (let n = 1, before = performance.now(); n <= ${steps}; n++) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        console.log('line ' + n);
        console.log('::astraml ' + JSON.stringify({ step: n, value: n }));
        const now = performance.now();
        (isAway ? away : near).push(now - before);
        before = now;
      }
      const summary = (all) => {
        all.sort((a, b) => a - b);
        const at = (share) => all[Math.floor(share * all.length)]?.toFixed(2);
        return all.length + ' steps, median ' + at(0.5) + ' ms, p99 ' + at(0.99) + ' ms';
      };
      console.log('near: ' + summary(near));
      console.log('away: ' + summary(away));
    `);

  /** What a lone attempt takes of its machine. */
  function taken(): { spoolBytes: number; memoryMiB: number } {
    const [attempt] = readdirSync(`${cluster.workDir}/sockets`);
    const spool = `${cluster.workDir}/attempts/${attempt}/spool`;
    const spoolBytes = readdirSync(spool).reduce((sum, name) => sum + statSync(`${spool}/${name}`).size, 0);
    const runner = cluster.runner().pid;
    const supervisor = listProcesses().find(
      ({ parent, command }) => parent === runner && command.includes('supervisor-process'),
    );
    const status = readFileSync(`/proc/${supervisor?.pid}/status`, 'utf8');
    return { spoolBytes, memoryMiB: Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) / 1024 };
  }

  async function trainThrough(away: () => Promise<void>, back: () => Promise<void>): Promise<string[]> {
    const steps = 200 * awaySeconds + 800; // at 5 ms each, longer than we are away
    const { id } = await submit(cluster.client(0), project, { command: trainer(steps) });
    const pid = Number((await untilLine(cluster, id, 'pid ')).slice(4));
    await untilLine(cluster, id, 'line ');
    await away();
    process.kill(pid, 'SIGUSR2');
    const atFirst = taken();
    await sleep(awaySeconds * 1000);
    const atLast = taken();
    process.kill(pid, 'SIGUSR2');
    assert.ok(atLast.memoryMiB < atFirst.memoryMiB + 64, 'the backlog is on disk, not in memory');
    await back();
    const lines = printed(await followLog(cluster.client(1), id));
    const { state, stateReason } = await jobState(cluster.client(0), id);
    assert.equal(state, 'SUCCEEDED', stateReason?.message);
    assert.equal((await attemptsOf(cluster, id)).length, 1, 'no attempt was lost');
    const expected = Array.from({ length: steps }, (_, n) => `line ${n + 1}`);
    assert.deepEqual(lines.slice(1, -2), expected, 'every line once, in order');
    const query =
      'query ($id: ID!) { job(id: $id) { metrics(names: ["value"]) { count } events(first: 100) { nodes { type } } } }';
    type Answer = { job: { metrics: { count: number }[]; events: { nodes: { type: string }[] } } };
    const { job } = await cluster.client(0).request<Answer>(query, { id });
    assert.equal(job.metrics[0]?.count, steps, 'every point once');
    assert.ok(!job.events.nodes.some(({ type }) => type === 'ALERT'), 'the checksum agrees');
    const describe = ({ spoolBytes, memoryMiB }: typeof atLast) =>
      `${spoolBytes} bytes of spool, ${memoryMiB.toFixed(0)} MiB of memory`;
    return [...lines.slice(-2), `${describe(atFirst)}; after ${awaySeconds} s: ${describe(atLast)}`];
  }

  test('both gateways are away: training does not notice, and everything arrives once', async (t) => {
    const result = await trainThrough(
      async () => cluster.gateways.forEach((gateway) => gateway.kill('SIGKILL')),
      async () => void (await Promise.all([0, 1].map((index) => cluster.startGateway(index)))),
    );
    result.forEach((line) => t.diagnostic(line));
  });

  test('Redis is away: training does not notice, and everything arrives once', async (t) => {
    const result = await trainThrough(
      () => cluster.redis.kill(),
      () => cluster.redis.restart(),
    );
    result.forEach((line) => t.diagnostic(line));
  });

  test('a backlog of 300,000 lines is delivered without the loss of a lease', async (t) => {
    const lines = 300_000;
    const talker = script(`
      import { writeFileSync } from 'node:fs';
      const signalled = new Promise((resolve) => process.once('SIGUSR2', resolve));
      console.log('pid ' + process.pid);
      const alive = setInterval(() => {}, 1e3);
      await signalled;
      clearInterval(alive);
      for (let n = 1; n <= ${lines}; n += 100) {
        let text = '';
        for (let i = n; i < n + 100; i++) text += 'line ' + i + ' of a backlog\\n';
        if (!process.stdout.write(text)) await new Promise((resolve) => process.stdout.once('drain', resolve));
      }
      writeFileSync('printed', '');
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    `);
    const { id } = await submit(cluster.client(0), project, { command: talker });
    const pid = Number((await untilLine(cluster, id, 'pid ')).slice(4));
    for (const gateway of cluster.gateways) gateway.kill('SIGKILL');
    process.kill(pid, 'SIGUSR2');
    const folder = `${cluster.workDir}/attempts`;
    const isPrinted = () =>
      readdirSync(folder).some((name) => readdirSync(`${folder}/${name}/work`).includes('printed'));
    await until(isPrinted, { timeoutMs: 30_000, what: 'all lines in the spool' });
    await Promise.all([0, 1].map((index) => cluster.startGateway(index)));
    const startedAt = performance.now();
    await until(async () => (await jobState(cluster.client(0), id)).state === 'SUCCEEDED', {
      timeoutMs: 50_000,
      everyMs: 100,
      what: 'the end of the job',
    });
    const seconds = (performance.now() - startedAt) / 1000;
    t.diagnostic(`${lines} lines in ${seconds.toFixed(1)} s, ${(lines / seconds).toFixed(0)} a second`);
    assert.equal((await attemptsOf(cluster, id)).length, 1, 'no attempt was lost');
    const all = printed(await followLog(cluster.client(0), id)).slice(1);
    assert.equal(all.length, lines);
    assert.ok(all.every((text, index) => text === `line ${index + 1} of a backlog`));
  });
});
