// What is dead runs again: a job whose supervisor, or whose whole machine, was killed; and a runner that is told to stop
// hands its jobs over. Real processes, with the leases of production.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { skipUnless } from '../support/absent.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { isAlive } from '../support/processes.ts';
import { createProject, jobState, script, submit } from '../support/stack.ts';
import { until } from '../support/until.ts';

const skip = { ...skipUnless('own postgres'), ...skipUnless('own redis'), ...skipUnless('linux /proc') };
const project = 'p-rescue';

suite('with a lease of 30 s', skip, () => {
  let cluster: Cluster;
  let elsewhere: string;
  before(async () => {
    elsewhere = mkdtempSync(join(tmpdir(), 'astraml-elsewhere-'));
    cluster = await startCluster({ gateways: 2 });
    await createProject(cluster.client(0), project);
  });
  after(async () => {
    await cluster.stop();
    rmSync(elsewhere, { recursive: true, force: true });
  });

  /** Runs for ever in attempt 1, whatever it is told; ends by itself in the next. */
  const trainer = script(`
    process.on('SIGTERM', () => {});
    console.log('attempt ' + process.env.ASTRAML_ATTEMPT + ' pid ' + process.pid);
    if (process.env.ASTRAML_ATTEMPT === '1') setInterval(() => console.log('alive'), 200);
  `);

  async function startJob(command = trainer, spec: object = {}): Promise<{ id: string; pid: number }> {
    const { id } = await submit(cluster.client(0), project, { command, ...spec });
    return { id, pid: await pidOf(id, 1) };
  }

  async function pidOf(id: string, attempt: number, timeoutMs = 20_000): Promise<number> {
    const query = 'query ($id: ID!) { job(id: $id) { logs(first: 500) { nodes { text } } } }';
    const pattern = new RegExp(`^attempt ${attempt} pid (\\d+)$`);
    const find = async () => {
      const { job } = await cluster.client(0).request<{ job: { logs: { nodes: { text: string }[] } } }>(query, { id });
      return job.logs.nodes.map(({ text }) => pattern.exec(text)?.[1]).find((pid) => pid);
    };
    return Number(await until(find, { timeoutMs, everyMs: 100, what: `attempt ${attempt} of ${id}` }));
  }

  /** As people count them, by state. */
  async function countRunners(): Promise<Record<'ONLINE' | 'DRAINING', number>> {
    const query =
      '{ ONLINE: runners(states: [ONLINE]) { totalCount } DRAINING: runners(states: [DRAINING]) { totalCount } }';
    type Counts = Record<'ONLINE' | 'DRAINING', { totalCount: number }>;
    const { ONLINE, DRAINING } = await cluster.client(0).request<Counts>(query, {});
    return { ONLINE: ONLINE.totalCount, DRAINING: DRAINING.totalCount };
  }

  const untilSucceeded = (id: string) =>
    until(async () => (await jobState(cluster.client(0), id)).state === 'SUCCEEDED', { timeoutMs: 20_000 });

  /** Of a work folder: its runner, its supervisors, its commands. */
  function processesOf(workDir: string): { pid: number; what: string }[] {
    const found: { pid: number; what: string }[] = [];
    for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
      try {
        const command = readFileSync(`/proc/${name}/cmdline`, 'utf8');
        if (!readlinkSync(`/proc/${name}/cwd`).startsWith(workDir)) continue;
        const what = command.includes('supervisor-process')
          ? 'supervisor'
          : /runner\0start/.test(command)
            ? 'runner'
            : '';
        found.push({ pid: Number(name), what: what || 'command' });
      } catch {
        // it ended meanwhile
      }
    }
    return found;
  }

  /** At one blow: none can react to the end of another. */
  function kill(workDir: string, what: RegExp): void {
    const doomed = processesOf(workDir).filter((process) => what.test(process.what));
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const) for (const { pid } of doomed) process.kill(pid, signal);
  }

  const secondsSince = (at: number) => ((performance.now() - at) / 1000).toFixed(1);

  test('a supervisor that is killed under its runner: its command is ended, and the job runs again at once', async (t) => {
    const { id, pid } = await startJob();
    const startedAt = performance.now();
    kill(cluster.workDir, /supervisor/);
    await until(() => !isAlive(pid), { what: 'the end of its command' });
    await pidOf(id, 2, 10_000);
    t.diagnostic(`it runs again after ${secondsSince(startedAt)} s`);
    await untilSucceeded(id);
  });

  test('a runner that starts again ends what a dead supervisor left, and the job runs again at once', async (t) => {
    const { id, pid } = await startJob();
    kill(cluster.workDir, /supervisor|runner/);
    assert.ok(isAlive(pid), 'its command is left');
    const startedAt = performance.now();
    await cluster.startRunner();
    assert.ok(!isAlive(pid), 'it is gone when the runner is ready');
    await pidOf(id, 2, 10_000);
    t.diagnostic(`it runs again ${secondsSince(startedAt)} s after the start of the runner`);
    await untilSucceeded(id);
  });

  test('a supervisor that stands still while its runner starts again goes on when it wakes; the job runs once', async () => {
    const command = script("console.log('attempt 1 pid ' + process.pid); setTimeout(() => console.log('last'), 4_000)");
    const { id } = await startJob(command);
    const still = processesOf(cluster.workDir).find(({ what }) => what === 'supervisor');
    assert.ok(still);
    process.kill(still.pid, 'SIGSTOP');
    kill(cluster.workDir, /runner/);
    await cluster.startRunner();
    const other = script("console.log('attempt 1 pid ' + process.pid)");
    await startJob(other, { resources: { gpus: 0 } }); // the one that there is is not free
    process.kill(still.pid, 'SIGCONT');
    await untilSucceeded(id);
    const query = 'query ($id: ID!) { job(id: $id) { attempts { number } logs(last: 1) { nodes { text } } } }';
    type Answer = { job: { attempts: { number: number }[]; logs: { nodes: { text: string }[] } } };
    const { job } = await cluster.client(0).request<Answer>(query, { id });
    assert.deepEqual([job.attempts, job.logs.nodes], [[{ number: 1 }], [{ text: 'last' }]]);
  });

  test('a runner that drains waits for the end of its job, and ends then', async () => {
    const command = script("console.log('attempt 1 pid ' + process.pid); setTimeout(() => {}, 3_000)");
    const { id } = await startJob(command);
    cluster.runner().kill('SIGTERM');
    assert.deepEqual(await cluster.runner().untilEnd({ timeoutMs: 15_000 }), { code: 0, signal: null });
    assert.equal((await jobState(cluster.client(0), id)).state, 'SUCCEEDED');
    await cluster.startRunner();
  });

  test('a runner that drains waits for its job; a second signal hands it back at once', async (t) => {
    const { id, pid } = await startJob();
    const runner = cluster.runner();
    runner.kill('SIGTERM');
    await runner.untilLine(/"event":"draining"/);
    await new Promise((resolve) => setTimeout(resolve, 3_000)); // longer than its grace
    assert.equal((await jobState(cluster.client(0), id)).state, 'RUNNING');
    assert.ok(isAlive(pid));
    assert.deepEqual(await countRunners(), { ONLINE: 0, DRAINING: 1 });
    const startedAt = performance.now();
    runner.kill('SIGTERM');
    assert.deepEqual(await runner.untilEnd({ timeoutMs: 10_000 }), { code: 0, signal: null });
    assert.ok(!isAlive(pid));
    t.diagnostic(`handed back after ${secondsSince(startedAt)} s, of which 2 s are its grace`);
    assert.equal((await jobState(cluster.client(0), id)).state, 'QUEUED');
    await cluster.startRunner();
    assert.deepEqual(await countRunners(), { ONLINE: 1, DRAINING: 0 });
    await pidOf(id, 2);
    await untilSucceeded(id);
  });

  test('a machine that is gone: its job runs again elsewhere within 45 s', { timeout: 60_000 }, async (t) => {
    const { id } = await startJob();
    await cluster.startRunnerElsewhere('elsewhere', elsewhere);
    const startedAt = performance.now();
    kill(cluster.workDir, /./);
    await pidOf(id, 2, 50_000);
    const seconds = (performance.now() - startedAt) / 1000;
    t.diagnostic(`it runs elsewhere after ${seconds.toFixed(1)} s`);
    assert.ok(seconds < 45, `${seconds} s`);
    await untilSucceeded(id);
    assert.ok(readdirSync(join(elsewhere, 'attempts')).length === 1);
  });
});
