// From submission to the end, the whole product with real processes: every way in which a job ends, and what it leaves.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { eq } from 'drizzle-orm';
import type { Client } from '../../src/client/client.ts';
import { event } from '../../src/event/table.ts';
import { skipUnless } from '../support/absent.ts';
import { spawnNode } from '../support/child.ts';
import { isAlive } from '../support/processes.ts';
import {
  createProject,
  followLog,
  jobState,
  type Line,
  script,
  type Stack,
  startStack,
  submit,
} from '../support/stack.ts';
import { until } from '../support/until.ts';

const project = 'p-run';
const fixtures = join(import.meta.dirname, '../support/fixtures');
let stack: Stack;
let client: Client;

before(async () => {
  stack = await startStack({ graceMs: 1_500 });
  client = stack.client;
  await createProject(client, project);
});

after(async () => {
  await stack.stop();
  await expectNoLeaks();
});

const sh = (source: string) => ['/bin/sh', '-c', source];
const folder = () => stack.dataDir;

function start(command: string[], spec: Record<string, unknown> = {}) {
  return submit(client, project, { command, ...spec });
}

async function untilState(jobId: string, ...states: string[]) {
  return until(
    async () => {
      const found = await jobState(client, jobId);
      return states.includes(found.state) && found;
    },
    { timeoutMs: 20_000, what: states.join(' or ') },
  );
}

const untilEnd = (jobId: string) => untilState(jobId, 'SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT');

async function cancel(id: string, gracePeriodSeconds: number | null = null): Promise<string> {
  const { cancelJob } = await client.request<{ cancelJob: { job?: { state: string }; message?: string } }>(
    `mutation ($input: CancelJobInput!) {
      cancelJob(input: $input) { ... on JobPayload { job { state } } ... on UserError { message } }
    }`,
    { input: { id, gracePeriodSeconds, reason: 'enough' } },
  );
  assert.ok(cancelJob.job, cancelJob.message);
  return cancelJob.job.state;
}

type Attempt = {
  number: number;
  state: string;
  exitCode: number | null;
  signal: string | null;
  startedAt: string;
  finishedAt: string;
};

async function attemptsOf(id: string): Promise<Attempt[]> {
  const query = 'query ($id: ID!) { job(id: $id) { attempts { number state exitCode signal startedAt finishedAt } } }';
  return (await client.request<{ job: { attempts: Attempt[] } }>(query, { id })).job.attempts;
}

const output = (lines: Line[]) => lines.filter(({ stream }) => stream !== 'SYSTEM').map(({ text }) => text);
const system = (lines: Line[]) => lines.filter(({ stream }) => stream === 'SYSTEM').map(({ text }) => text);

async function lineOf(jobId: string, pattern: RegExp): Promise<RegExpExecArray> {
  const query = 'query ($id: ID!) { job(id: $id) { logs(last: 100) { nodes { text } } } }';
  return until(
    async () => {
      const { job } = await client.request<{ job: { logs: { nodes: { text: string }[] } } }>(query, { id: jobId });
      return job.logs.nodes.map(({ text }) => pattern.exec(text)).find((found) => found);
    },
    { timeoutMs: 10_000, what: `a line ${pattern}` },
  );
}

suite('a command', () => {
  test('that exits 0 is a job that SUCCEEDED, with its log from the first line to the last', async () => {
    const job = await start(sh('echo out; echo err >&2; printf "no line feed"'), { hyperparams: { batchSize: 4 } });
    const lines = await followLog(client, job.id);
    assert.deepEqual(output(lines).toSorted(), ['err', 'no line feed', 'out']);
    assert.match(system(lines)[0] ?? '', /^Attempt 1 on runner .*: \/bin\/sh -c/);
    assert.deepEqual(
      lines.map(({ seq }) => seq),
      lines.map((_, index) => index + 1),
    );
    const { state, stateReason } = await jobState(client, job.id);
    assert.deepEqual([state, stateReason?.code], ['SUCCEEDED', 'COMPLETED']);
  });

  test('on a machine without GPU is told so', async () => {
    const job = await start(sh('echo "gpus=$ASTRAML_GPUS visible=[$CUDA_VISIBLE_DEVICES]"'));
    const lines = await followLog(client, job.id);
    if (!lines[0]?.text.includes('virtual slot')) return; // it has one
    assert.match(lines[0].text, /virtual slot 0 \(this machine has no GPU: the slot only counts\)/);
    assert.deepEqual(output(lines), ['gpus=1 visible=[]']);
  });

  test('that exits otherwise is a job that FAILED, with its last lines', async () => {
    for (const code of [1, 3, 255]) {
      const job = await start(sh(`echo "about to fail"; exit ${code}`));
      const { state, stateReason } = await untilEnd(job.id);
      assert.deepEqual([state, stateReason?.code], ['FAILED', 'EXIT_CODE']);
      assert.match(stateReason?.message ?? '', new RegExp(`Exit code ${code} `));
      assert.ok(stateReason?.logExcerpt.includes('about to fail'));
      assert.equal((await attemptsOf(job.id))[0]?.exitCode, code);
    }
  });

  test('that is killed is a job that FAILED, with the signal', async () => {
    const job = await start(sh('kill -SEGV $$'));
    const { state, stateReason } = await untilEnd(job.id);
    assert.deepEqual([state, stateReason?.code], ['FAILED', 'SIGNAL']);
    assert.match(stateReason?.message ?? '', /SIGSEGV/);
    assert.equal((await attemptsOf(job.id))[0]?.signal, 'SIGSEGV');
  });

  test('that cannot be started is a job that FAILED, with what to check', async () => {
    const job = await start(['no-such-program', 'two words', 'x\ny']);
    const { state, stateReason } = await untilEnd(job.id);
    assert.deepEqual([state, stateReason?.code], ['FAILED', 'COMMAND_NOT_STARTED']);
    assert.match(stateReason?.message ?? '', /no-such-program was not found on the runner/);
    assert.ok(stateReason?.hint);
    const [first] = system(await followLog(client, job.id));
    assert.ok(first?.endsWith(': no-such-program "two words" "x\\ny"'), first);
    assert.equal((await attemptsOf(job.id)).length, 1);
  });

  test('of a quarter of a megabyte, or with a name that is none, ends its job all the same', async () => {
    for (const command of [
      ['x'.repeat(32_000)],
      ['/bin/true', ...Array.from({ length: 8 }, () => 'y'.repeat(32_000))],
    ]) {
      const job = await start(command);
      await untilEnd(job.id);
      assert.equal((await attemptsOf(job.id)).length, 1);
      assert.ok(system(await followLog(client, job.id)).every((text) => text.length < 3_000));
    }
  });

  test('takes longer than its timeout and is TIMED_OUT', async () => {
    const source = `process.on('SIGTERM', () => { console.log(require('fs').readFileSync(process.env.ASTRAML_STOP_FILE, 'utf8')); process.exit(0); }); setInterval(() => {}, 99); console.log('deadline', process.env.ASTRAML_DEADLINE)`;
    const job = await start([process.execPath, '-e', source], { timeoutSeconds: 1 });
    const { state, stateReason } = await untilEnd(job.id);
    assert.deepEqual([state, stateReason?.code], ['TIMED_OUT', 'TIMEOUT']);
    const lines = await followLog(client, job.id);
    assert.ok(output(lines).some((text) => text.startsWith('{"reason":"TIMEOUT","deadline":')));
    assert.ok(system(lines).some((text) => text.includes('The timeout of 1 s is over')));
  });

  test('may have a year', async () => {
    const job = await start(sh('sleep 0.3; echo done'), { timeoutSeconds: 31_536_000 });
    assert.equal((await untilEnd(job.id)).state, 'SUCCEEDED');
  });
});

suite('cancelling', () => {
  const trainer = (onTerm: string) => [
    process.execPath,
    '-e',
    `process.on('SIGTERM', () => { ${onTerm} }); setInterval(() => {}, 99); console.log('pid=' + process.pid)`,
  ];

  test('stops a running job by SIGTERM, with the stop file there before', async () => {
    const job = await start(
      trainer("console.log(require('fs').readFileSync(process.env.ASTRAML_STOP_FILE, 'utf8')); process.exit(3)"),
    );
    const pid = Number((await lineOf(job.id, /pid=(\d+)/))[1]);
    assert.equal(await cancel(job.id), 'CANCELLING');
    const { state, stateReason } = await untilEnd(job.id);
    assert.deepEqual([state, stateReason?.code, isAlive(pid)], ['CANCELLED', 'REQUESTED', false]);
    const line = output(await followLog(client, job.id)).find((text) => text.startsWith('{'));
    const { reason, deadline } = JSON.parse(line ?? '') as { reason: string; deadline: number };
    assert.equal(reason, 'CANCELLED');
    assert.ok(Math.abs(deadline - Date.now() / 1000) < 10);
  });

  test('a job that then exits 0 is CANCELLED all the same', async () => {
    const job = await start(trainer('process.exit(0)'));
    await lineOf(job.id, /pid=\d/);
    await cancel(job.id);
    assert.equal((await untilEnd(job.id)).state, 'CANCELLED');
    assert.equal((await attemptsOf(job.id))[0]?.exitCode, 0);
  });

  test('kills a job that ignores SIGTERM, after its grace and not before', async () => {
    const job = await start(trainer("console.log('ignored')"));
    const pid = Number((await lineOf(job.id, /pid=(\d+)/))[1]);
    const startedAt = performance.now();
    await cancel(job.id, 2);
    assert.equal(await cancel(job.id, 0), 'CANCELLING'); // again, and no sooner
    await lineOf(job.id, /ignored/);
    assert.ok(isAlive(pid));
    assert.equal((await untilEnd(job.id)).state, 'CANCELLED');
    const seconds = (performance.now() - startedAt) / 1000;
    assert.ok(seconds >= 2 && seconds < 4, `${seconds} s`);
    assert.equal(isAlive(pid), false);
    assert.equal((await attemptsOf(job.id))[0]?.signal, 'SIGKILL');
    assert.equal(output(await followLog(client, job.id)).filter((text) => text === 'ignored').length, 1);
  });

  test('waits for processes that went their own way', skipUnless('linux /proc'), async () => {
    const job = await start(sh(`setsid sh -c "trap '' TERM; echo pid=\\$\\$; sleep 60; sleep 60"`));
    const pid = Number((await lineOf(job.id, /pid=(\d+)/))[1]);
    await cancel(job.id, 1);
    assert.equal((await untilEnd(job.id)).state, 'CANCELLED');
    assert.equal(isAlive(pid), false);
  });

  test('a queued job ends it at once, without an attempt', async () => {
    const running = await start(sh('sleep 60'));
    await untilState(running.id, 'RUNNING');
    const queued = await start(sh('echo never'));
    assert.equal(await cancel(queued.id), 'CANCELLED');
    assert.deepEqual(await attemptsOf(queued.id), []);
    await cancel(running.id);
    await untilEnd(running.id);
  });
});

suite('one slot', () => {
  test('runs one job after the other, the most urgent first, and one without GPUs beside them', async () => {
    const source = `const fs = require('fs'); fs.mkdirSync(process.env.LOCK); setTimeout(() => fs.rmdirSync(process.env.LOCK), 250)`;
    const env = [{ name: 'LOCK', from: { value: join(folder(), 'slot-lock') } }];
    const first = await start(sh('sleep 4; echo first'));
    await untilState(first.id, 'RUNNING');
    const jobs = [];
    for (const priority of [0, 50, -50, 100, 0])
      jobs.push(await start([process.execPath, '-e', source], { priority, env }));
    const beside = await start(sh('echo beside'), { resources: { gpus: 0 } });
    assert.equal((await untilEnd(beside.id)).state, 'SUCCEEDED');
    assert.equal((await jobState(client, first.id)).state, 'RUNNING');
    const started: { index: number; at: string }[] = [];
    for (const [index, { id }] of jobs.entries()) {
      assert.equal((await untilEnd(id)).state, 'SUCCEEDED', 'no two at once');
      started.push({ index, at: (await attemptsOf(id))[0]?.startedAt ?? '' });
    }
    const order = started.toSorted((a, b) => a.at.localeCompare(b.at)).map(({ index }) => index);
    assert.deepEqual(order, [3, 1, 0, 4, 2]);
  });

  test('leaves a job that wants eight waiting, with the reason, and runs others', async () => {
    const big = await start(sh('true'), { resources: { gpus: 8 }, priority: 100 });
    const small = await start(sh('true'));
    await untilEnd(small.id);
    const { state, stateReason } = await jobState(client, big.id);
    assert.equal(state, 'QUEUED');
    assert.equal(stateReason?.code, 'WAITING_FOR_RUNNER');
    assert.match(stateReason?.message ?? '', /No runner online offers 8 GPUs; the largest has 1 GPU\./);
    await cancel(big.id);
  });
});

suite('output', () => {
  test('of 20,000 lines at once arrives from 1 to N, and no checksum differs', async (t) => {
    const startedAt = performance.now();
    const job = await start([
      process.execPath,
      '-e',
      "let text = ''; for (let n = 1; n <= 20000; n++) text += 'line ' + n + '\\n'; process.stdout.write(text)",
    ]);
    const lines = output(await followLog(client, job.id));
    t.diagnostic(
      `${Math.round(20_000 / ((performance.now() - startedAt) / 1000))} lines/s from submission to the last line`,
    );
    assert.deepEqual(
      lines,
      Array.from({ length: 20_000 }, (_, n) => `line ${n + 1}`),
    );
    assert.deepEqual(await alertsOf(job.id), []);
    assert.equal((await untilEnd(job.id)).state, 'SUCCEEDED');
  });

  test('of any kind harms nothing', async () => {
    const hostile = [
      'nul \0 here',
      '<img src=x onerror=alert(1)>',
      'link \u001b]8;;https://evil.example\u0007click\u001b]8;;\u0007',
      'clipboard \u001b]52;c;ZXZpbA==\u0007',
      '\u001b[31mred\u001b[0m \u001b[2J\u001b[H',
      '{"__proto__": {"admin": true}}',
      "'; drop table job; --",
      'separators \u2028 \u2029 \u0085',
    ];
    writeFileSync(
      join(folder(), 'hostile.bin'),
      Buffer.concat([
        ...hostile.map((text) => Buffer.from(`${text}\n`)),
        Buffer.from([0x62, 0xff, 0xfe, 0x0a]),
        Buffer.from(`${'m'.repeat(1_000_000)}\n`),
        Buffer.from('last\n'),
      ]),
    );
    const job = await start(['cat', join(folder(), 'hostile.bin')]);
    const lines = output(await followLog(client, job.id));
    assert.deepEqual(lines, [...hostile, 'b��', 'm'.repeat(16_384), 'last']);
    assert.deepEqual(await alertsOf(job.id), []);
    assert.equal((await untilEnd(job.id)).state, 'SUCCEEDED');
  });

  test('of markers is no log; malformed ones are, with one warning', async () => {
    const big = Object.fromEntries(Array.from({ length: 200 }, (_, n) => [`metric/${n}/${'x'.repeat(200)}`, n])); // 43 KB
    const text = [
      '::astraml {"step": 1, "loss": NaN}',
      `::astraml ${JSON.stringify(big)}`,
      '::astraml {"loss": }',
      '::astraml nonsense',
      `::astraml {"loss": 1, "note": "${'y'.repeat(70_000)}"}`,
      'plain',
    ];
    const file = join(folder(), 'markers.txt');
    writeFileSync(file, `${text.join('\n')}\n`);
    const job = await start(['cat', file]);
    const lines = await followLog(client, job.id);
    assert.deepEqual(output(lines), [text[2], text[3], text[4]?.slice(0, 16_384), 'plain']);
    assert.equal(system(lines).filter((line) => line.includes('is no marker')).length, 1);
    assert.deepEqual(await alertsOf(job.id), []);
  });

  async function alertsOf(id: string): Promise<string[]> {
    const rows = await stack.gateway.store.database.db.select().from(event).where(eq(event.jobId, id));
    return rows.filter(({ type }) => type === 'ALERT').map(({ message }) => message);
  }
});

test('what an attempt leaves is its work, nothing of ours', async () => {
  const attempts = join(folder(), 'runner', 'attempts');
  for (const name of readdirSync(attempts)) {
    const listLeft = () => readdirSync(join(attempts, name)).filter((entry) => entry !== 'stop.json');
    await until(() => !listLeft().includes('spool')).catch(() => {}); // its end is told before it hears that it is stored
    assert.deepEqual(listLeft().toSorted(), ['config.json', 'output', 'work']);
  }
});

suite('another stack', () => {
  let dataDir: string;
  let own: Stack | undefined;
  before(() => void (dataDir = mkdtempSync(join(tmpdir(), 'run-'))));
  after(async () => {
    await own?.stop();
    rmSync(dataDir, { recursive: true, force: true });
  });

  /** Prints numbers in attempt 1 until it is stopped, and says which was the last; ends by itself in attempt 2. */
  const counter = `
    let n = 0;
    const print = () => console.log('attempt ' + process.env.ASTRAML_ATTEMPT + ' line ' + ++n);
    console.log('pid=' + process.pid);
    if (process.env.ASTRAML_ATTEMPT !== '1') { print(); process.exit(0); }
    process.on('SIGTERM', () => { for (let i = 0; i < 500; i++) print(); console.log('last ' + n); clearInterval(timer); });
    const timer = setInterval(print, 2);
  `;

  test('with two slots runs two jobs at once, never two on a slot', async () => {
    own = await startStack({ dataDir, gpus: 2 });
    ({ client } = own);
    await createProject(client, project);
    const jobs = [];
    for (let n = 0; n < 5; n++) jobs.push(await start(sh('sleep 0.6')));
    const spans: { slot: string; from: number; to: number }[] = [];
    for (const { id } of jobs) {
      assert.equal((await untilEnd(id)).state, 'SUCCEEDED');
      const [attempt] = await attemptsOf(id);
      const slot =
        /virtual slot (\d)|GPU (\d)/
          .exec((await followLog(client, id))[0]?.text ?? '')
          ?.slice(1)
          .join('') ?? '';
      spans.push({ slot, from: Date.parse(attempt?.startedAt ?? ''), to: Date.parse(attempt?.finishedAt ?? '') });
    }
    const overlap = (a: (typeof spans)[0], b: (typeof spans)[0]) => a !== b && a.from < b.to && b.from < a.to;
    assert.ok(
      spans.some((a) => spans.some((b) => overlap(a, b))),
      'two at once',
    );
    assert.ok(!spans.some((a) => spans.some((b) => a.slot === b.slot && overlap(a, b))), 'never two on a slot');
    client = stack.client;
    await own.stop();
  });

  test('that is stopped hands its job back, and the next one runs it again, with no line lost', async () => {
    own = await startStack({ dataDir });
    ({ client } = own);
    await createProject(client, 'p-again', script(counter));
    const job = await submit(client, 'p-again');
    const pid = Number((await lineOf(job.id, /pid=(\d+)/))[1]);
    const startedAt = performance.now();
    await own.stop();
    assert.ok(performance.now() - startedAt < 8_000);
    assert.equal(isAlive(pid), false);

    own = await startStack({ dataDir });
    ({ client } = own);
    const lines = await followLog(client, job.id);
    assert.equal((await jobState(client, job.id)).state, 'SUCCEEDED');
    const attempts = await attemptsOf(job.id);
    assert.equal(attempts.length, 2);
    const first = output(lines.filter(({ attempt }) => attempt === 1)).slice(1);
    const last = Number(/^last (\d+)$/.exec(first.at(-1) ?? '')?.[1]);
    assert.ok(last > 500, first.slice(-3).join(' | '));
    assert.deepEqual(
      first.slice(0, -1),
      Array.from({ length: last }, (_, n) => `attempt 1 line ${n + 1}`),
    );
    assert.equal(output(lines).at(-1), 'attempt 2 line 1');
    client = stack.client;
    await own.stop();
  });

  test(
    'that is killed leaves a trainer, which the next one ends before it runs the job again',
    skipUnless('linux /proc'),
    async () => {
      const child = spawnNode([join(fixtures, 'runs-a-stack.ts'), dataDir, counter]);
      const [, jobId = '', pid] = await child.untilLine(/^job=(.*) pid=(.*)$/, { timeoutMs: 45_000 });
      child.kill('SIGKILL');
      await child.untilEnd();
      const [attemptId = ''] = readdirSync(join(dataDir, 'runner', 'attempts')).filter((name) =>
        readdirSync(join(dataDir, 'runner', 'attempts', name)).includes('attempt.json'),
      );
      const kept = JSON.parse(readFileSync(join(dataDir, 'runner', 'attempts', attemptId, 'attempt.json'), 'utf8')) as {
        jobId: string;
      };
      assert.equal(kept.jobId, jobId);

      own = await startStack({ dataDir, env: { ASTRAML_RUNNER_LEASE_SECONDS: '3' } });
      ({ client } = own);
      assert.equal(isAlive(Number(pid)), false, 'it is gone when the runner has started');
      assert.equal((await untilEnd(jobId)).state, 'SUCCEEDED');
      const attempts = await attemptsOf(jobId);
      assert.equal(attempts.length, 2);
      const lines = await followLog(client, jobId);
      assert.ok(system(lines).some((text) => /^The (runner was lost|supervisor was killed) in attempt 1/.test(text)));
      assert.equal(output(lines).at(-1), 'attempt 2 line 1');
      const first = output(lines).filter((text) => text.startsWith('attempt 1'));
      assert.deepEqual(
        first,
        first.map((_, n) => `attempt 1 line ${n + 1}`),
      );
      client = stack.client;
      await own.stop();
    },
  );
});
