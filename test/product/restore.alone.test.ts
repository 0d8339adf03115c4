// A Postgres that comes back older than what runners believe: a dump is taken while jobs run, the run goes on, and the
// database is replaced by the dump. Whatever ran ends or goes on; nothing hangs, and no place of a runner stays taken.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import postgres from 'postgres';
import { skipUnless } from '../support/absent.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { findProgram } from '../support/install.ts';
import { findPostgres } from '../support/postgres.ts';
import { createProject, jobState, script, submit } from '../support/stack.ts';
import { until } from '../support/until.ts';

const skip = { ...skipUnless('own postgres'), ...skipUnless('own redis') };
const project = 'p-restore';
const longMs = 120_000;

suite('a database that is replaced by its dump while jobs run', skip, () => {
  let cluster: Cluster;
  let folder: string;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'astraml-restore-'));
    cluster = await startCluster({ gateways: 1, leaseSeconds: 5 });
    await createProject(cluster.client(0), project);
  });
  after(async () => {
    await cluster.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Says a line every 50 ms until the file `name` appears; `name.pid` has its pid. */
  const talker = (name: string) =>
    script(`
      import { existsSync, writeFileSync } from 'node:fs';
      const file = ${JSON.stringify(folder)} + '/' + ${JSON.stringify(name)};
      writeFileSync(file + '.pid', String(process.pid));
      for (let n = 1; !existsSync(file); n++) {
        console.log('${name} ' + n);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      console.log('${name} ends');
    `);
  const release = (name: string) => writeFileSync(join(folder, name), '');
  const start = (name: string) =>
    submit(cluster.client(0), project, { command: talker(name), name, resources: { gpus: 0 } });
  const state = async (id: string) => (await jobState(cluster.client(0), id)).state;
  const reaches = (id: string, wanted: string) =>
    until(async () => (await state(id).catch(() => '')) === wanted, { timeoutMs: longMs, what: `${id} ${wanted}` });
  type Log = { nodes: { text: string }[]; gaps: { reason: string; fromSeq: number; toSeq: number }[] };
  const tail = async (id: string): Promise<Log & { attempts: number }> => {
    const query = `query ($id: ID!) { job(id: $id) { attempts { id }
      logs(last: 1000) { nodes { text } gaps { reason fromSeq toSeq } } } }`;
    const { job } = await cluster.client(0).request<{ job: { attempts: object[]; logs: Log } }>(query, { id });
    return { ...job.logs, attempts: job.attempts.length };
  };
  const linesOf = async (id: string) => (await tail(id).catch(() => ({ nodes: [] }))).nodes.length;
  const isAlive = (name: string) =>
    existsSync(`/proc/${execFileSync('cat', [join(folder, `${name}.pid`)], { encoding: 'utf8' })}`);

  const program = (name: string) => {
    const bin = findPostgres();
    return bin && existsSync(join(bin, name)) ? join(bin, name) : (findProgram(name) ?? name);
  };
  const dumpTo = (file: string) =>
    execFileSync(program('pg_dump'), ['--format=custom', `--file=${file}`, cluster.databaseUrl]);

  /** As an operator does it: gateways down, the database replaced, gateways up. */
  async function restoreFrom(file: string): Promise<void> {
    await cluster.gateways[0]?.stop();
    const name = new URL(cluster.databaseUrl).pathname.slice(1);
    const sql = postgres(cluster.postgres.url, { max: 1, onnotice: () => {} });
    await sql.unsafe(`drop database ${name} with (force)`);
    await sql.unsafe(`create database ${name} template template0`);
    await sql.end();
    execFileSync(program('pg_restore'), ['--exit-on-error', `--dbname=${cluster.databaseUrl}`, file]);
    await cluster.startGateway(0);
  }

  test('loses what came after it, and every job that ran ends or goes on', { timeout: 280_000 }, async (t) => {
    const [goes, ended] = [await start('goes'), await start('ended')];
    await until(async () => (await linesOf(goes.id)) > 10 && (await linesOf(ended.id)) > 3, { timeoutMs: longMs });
    const dump = join(folder, 'dump');
    dumpTo(dump);

    // Ends after the dump: to the restored database it still runs, and nobody runs it.
    release('ended');
    await reaches(ended.id, 'SUCCEEDED');
    // Begins after the dump: the restored database knows neither the job nor its attempt.
    const unknown = await start('unknown');
    await until(async () => (await linesOf(unknown.id)) > 3, { timeoutMs: longMs });
    const seen = await linesOf(goes.id);
    await until(async () => (await linesOf(goes.id)) > seen + 10, { timeoutMs: longMs });
    const attemptPid = isAlive('unknown');
    assert.equal(attemptPid, true);

    await restoreFrom(dump);
    const since = performance.now();

    await until(() => !isAlive('unknown'), { timeoutMs: longMs, what: 'the end of what nobody knows' });
    t.diagnostic(`the unknown attempt ended after ${Math.round(performance.now() - since)} ms`);
    await assert.rejects(tail(unknown.id), 'its job is gone');

    // One goes on: same attempt, its newest lines behind a gap.
    await until(async () => (await tail(goes.id)).gaps.some(({ reason }) => reason === 'RESTORED'), {
      timeoutMs: longMs,
    });
    t.diagnostic(`the known attempt went on after ${Math.round(performance.now() - since)} ms`);
    assert.equal(await state(goes.id), 'RUNNING');
    release('goes');
    await reaches(goes.id, 'SUCCEEDED');
    const log = await tail(goes.id);
    assert.equal(log.attempts, 1, 'in one attempt');
    assert.ok(
      log.nodes.some(({ text }) => text === 'goes ends'),
      'with its last line',
    );
    assert.equal(log.gaps.length, 1, JSON.stringify(log.gaps));
    assert.ok(
      log.nodes.some(({ text }) => /came back older, from a backup: \d+ records/.test(text)),
      'and it is said',
    );

    // What had ended runs again once its lease is over, and a place is free for it.
    await reaches(ended.id, 'SUCCEEDED');
    assert.equal((await tail(ended.id)).attempts, 2);
    const next = await submit(cluster.client(0), project, { command: script(''), resources: { gpus: 0 } });
    await reaches(next.id, 'SUCCEEDED');
    const { runners } = await cluster
      .client(0)
      .request<{ runners: { nodes: { state: string; placesBusy: number }[] } }>(
        '{ runners(states: [ONLINE]) { nodes { state placesBusy } } }',
      );
    assert.deepEqual(runners.nodes, [{ state: 'ONLINE', placesBusy: 0 }]);
    assert.doesNotMatch(cluster.output(), /UnhandledPromise|unhandledRejection|"bug"/);
  });
});
