// What must not run twice, and what must not run on: a job that stops when it is cut off, and cancellations of jobs whose
// processes do not want to end. Real processes, with supervisors of their own.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { skipUnless } from '../support/absent.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { isAlive, listProcesses } from '../support/processes.ts';
import { createProject, jobState, script, submit } from '../support/stack.ts';
import { until } from '../support/until.ts';

const skip = { ...skipUnless('own postgres'), ...skipUnless('own redis'), ...skipUnless('linux /proc') };
const project = 'p-cut';
const leaseSeconds = 6;

suite('with a lease of 6 s', skip, () => {
  let cluster: Cluster;
  let shared: string;
  before(async () => {
    shared = mkdtempSync(join(tmpdir(), 'astraml-shared-'));
    cluster = await startCluster({ gateways: 2, leaseSeconds });
    await createProject(cluster.client(0), project);
  });
  after(async () => {
    await cluster.stop();
    rmSync(shared, { recursive: true, force: true });
  });

  const stateOf = async (id: string) => (await jobState(cluster.client(0), id)).state;

  async function linesOf(id: string): Promise<string[]> {
    const query = 'query ($id: ID!) { job(id: $id) { logs(first: 100) { nodes { text } } } }';
    const { job } = await cluster.client(0).request<{ job: { logs: { nodes: { text: string }[] } } }>(query, { id });
    return job.logs.nodes.map(({ text }) => text);
  }

  /** Its command and a child in a session of its own, which ignore SIGTERM; their pids once both run. */
  async function startGuarded(): Promise<{ id: string; pids: number[] }> {
    const source = `trap '' TERM; echo "pid=$$ attempt $ASTRAML_ATTEMPT"; [ "$ASTRAML_ATTEMPT" = 1 ] || exit 0; while :; do sleep 1; done`;
    const command = ['sh', '-c', `setsid sh -c '${source.replaceAll("'", `'\\''`)}' & ${source}`];
    const { id } = await submit(cluster.client(0), project, { command, onCut: 'stop' });
    const find = async () => (await linesOf(id)).flatMap((text) => /^pid=(\d+) attempt 1$/.exec(text)?.[1] ?? []);
    await until(async () => (await find()).length === 2, { timeoutMs: 30_000, what: 'two pids' });
    return { id, pids: (await find()).map(Number) };
  }

  const ours = (what: RegExp) =>
    listProcesses().filter(({ pid, command }) => what.test(command) && isOf(cluster.workDir, `${pid}`));

  const untilTwice = (id: string) =>
    until(async () => (await stateOf(id)) === 'SUCCEEDED', { timeoutMs: 40_000, everyMs: 100, what: 'attempt 2' });

  test('a job that stops when it is cut off is gone at once when its runner and its supervisor are killed', async (t) => {
    const { id, pids } = await startGuarded();
    const doomed = ours(/supervisor-process|runner start/);
    assert.equal(doomed.length, 2);
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const) for (const { pid } of doomed) process.kill(pid, signal);
    const startedAt = performance.now();
    await until(() => !pids.some(isAlive), { timeoutMs: leaseSeconds * 900, everyMs: 20, what: 'its end' });
    t.diagnostic(`gone ${((performance.now() - startedAt) / 1000).toFixed(2)} s after both were killed`);
    await until(() => ours(/guard-process/).length === 0, { what: 'the end of its guard' });
    await cluster.startRunner();
    await untilTwice(id);
  });

  test('a job that stops when it is cut off is gone before its lease when its supervisor stands still', async (t) => {
    const { id, pids } = await startGuarded();
    const [still] = ours(/supervisor-process/);
    assert.ok(still);
    process.kill(still.pid, 'SIGSTOP');
    const startedAt = performance.now();
    await until(() => !pids.some(isAlive), { timeoutMs: leaseSeconds * 1000, everyMs: 20, what: 'its end' });
    t.diagnostic(`gone ${((performance.now() - startedAt) / 1000).toFixed(2)} s after it was stopped`);
    process.kill(still.pid, 'SIGCONT');
    await untilTwice(id);
    await until(() => ours(/guard-process/).length === 0, { what: 'the end of the guards' });
  });

  const cancel = (id: string) =>
    cluster
      .client(0)
      .request(
        'mutation ($id: ID!) { cancelJob(input: { id: $id, gracePeriodSeconds: 1 }) { ... on UserError { message } } }',
        { id },
      );

  test('a job that stops when it is cut off is gone before its lease, runs again, and never twice at once', async (t) => {
    const file = join(shared, 'beats');
    // Ignores SIGTERM, as does the child that it leaves in a session of its own; both write to a shared place.
    const command = script(`
      const { appendFileSync } = await import('node:fs');
      const { spawn } = await import('node:child_process');
      process.on('SIGTERM', () => {});
      const who = process.argv[1] === 'child' ? 'child' : 'parent';
      const attempt = Number(process.env.ASTRAML_ATTEMPT);
      const beat = () => appendFileSync(${JSON.stringify(file)}, JSON.stringify({ at: Date.now(), attempt, who }) + '\\n');
      beat();
      if (attempt === 1) setInterval(beat, 20);
    `);
    const child = [...command, 'child'].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
    const parent = command.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
    const { id } = await submit(cluster.client(0), project, {
      command: ['sh', '-c', `setsid ${child} & exec ${parent}`],
      onCut: 'stop',
    });
    const beats = () =>
      readFileSync(file, 'utf8')
        .trim()
        .split('\n')
        .map((text) => JSON.parse(text) as { at: number; attempt: number; who: string });
    await until(async () => (await stateOf(id)) === 'RUNNING', { timeoutMs: 30_000 });
    await sleep(1_000);

    for (const gateway of cluster.gateways) gateway.kill('SIGKILL');
    const cutAt = Date.now();
    await cluster.redis.kill();
    await sleep((leaseSeconds + 3) * 1000);
    const first = beats();
    assert.deepEqual([...new Set(first.map(({ who }) => who))].toSorted(), ['child', 'parent']);
    const goneMs = Math.max(...first.map(({ at }) => at)) - cutAt;
    t.diagnostic(`gone ${(goneMs / 1000).toFixed(1)} s after the cut`);
    assert.ok(goneMs < leaseSeconds * 1000, `${goneMs} ms`);
    assert.ok(goneMs > leaseSeconds * 500, `${goneMs} ms: no sooner than it must`);

    await cluster.redis.restart();
    await Promise.all([0, 1].map((index) => cluster.startGateway(index)));
    await until(async () => (await stateOf(id)) === 'SUCCEEDED', { timeoutMs: 40_000, everyMs: 200, what: 'its end' });
    const all = beats();
    const [last, next] = [all.findLast(({ attempt }) => attempt === 1), all.find(({ attempt }) => attempt === 2)];
    assert.ok(last && next && last.at < next.at);
    assert.ok(!all.some(({ attempt }) => attempt > 2), 'it ran twice in all');
  });

  /** Says the pids of three processes that ignore SIGTERM: the command, one forked twice, one in a session of its own. */
  const stubborn = [
    'sh',
    '-c',
    `trap '' TERM; for how in '' setsid; do ($how sh -c 'echo pid=$$; while :; do sleep 1; done' &) ; done
     echo pid=$$; while :; do sleep 1; done`,
  ];
  async function startStubborn(): Promise<{ id: string; pids: number[] }> {
    const { id } = await submit(cluster.client(0), project, { command: stubborn });
    const find = async () => (await linesOf(id)).flatMap((text) => /^pid=(\d+)$/.exec(text)?.[1] ?? []).map(Number);
    const pids = await until(async () => ((await find()).length === 3 ? find() : undefined), { timeoutMs: 30_000 });
    assert.ok(pids.every(isAlive));
    return { id, pids };
  }

  test('CANCELLED is said when all are gone: children that ignore SIGTERM, fork twice, call setsid', async () => {
    const { id, pids } = await startStubborn();
    await cancel(id);
    await until(
      async () => {
        const alive = pids.filter(isAlive).length; // before we ask: they may only become fewer
        const state = await stateOf(id);
        if (state === 'CANCELLED') assert.ok(!pids.some(isAlive), `${alive} were alive`);
        return state === 'CANCELLED';
      },
      { timeoutMs: 15_000, everyMs: 20, what: 'CANCELLED' },
    );
  });

  test('a cancellation of a job whose machine is gone ends by its lease', async (t) => {
    const { id, pids } = await startStubborn();
    const doomed = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && isOf(cluster.workDir, name));
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const) for (const pid of doomed) process.kill(Number(pid), signal);
    await until(() => !pids.some(isAlive), { what: 'the end of the machine' });
    const startedAt = performance.now();
    await cancel(id);
    assert.equal(await stateOf(id), 'CANCELLING');
    await until(async () => (await stateOf(id)) === 'CANCELLED', {
      timeoutMs: 30_000,
      everyMs: 100,
      what: 'CANCELLED',
    });
    const seconds = (performance.now() - startedAt) / 1000;
    t.diagnostic(`CANCELLED after ${seconds.toFixed(1)} s`);
    assert.ok(seconds < 2 * leaseSeconds + 5, `${seconds} s`);
  });

  function isOf(workDir: string, pid: string): boolean {
    try {
      return readlinkSync(`/proc/${pid}/cwd`).startsWith(workDir);
    } catch {
      return false; // it ended meanwhile
    }
  }
});
