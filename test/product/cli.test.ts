// The command line as people and scripts meet it: a process of its own against a real gateway with a real runner.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { after, before, suite, test } from 'node:test';
import { createOutput, stateCell } from '../../src/cli/output.ts';
import { cleanLine, cleanText, formatDuration, parseDuration, textWidth } from '../../src/cli/text.ts';
import { spawnNode } from '../support/child.ts';
import { binary, commandLine } from '../support/cli.ts';
import { Proxy } from '../support/proxy.ts';
import { documentedJson, documentedLine, documentedYaml } from '../support/documents.ts';
import { createProject, script, type Stack, startStack, submit } from '../support/stack.ts';

/** Behaves as its model says. */
const trainer = script(`
  console.log('\\x1b[31mloss\\x1b[0m falls');
  for (let step = 1; step <= 3; step++) console.log('::astraml ' + JSON.stringify({ step, 'train/loss': 1 / step }));
  if (process.env.ASTRAML_MODEL === 'fails') process.exit(3);
  if (process.env.ASTRAML_MODEL === 'waits') setTimeout(() => {}, 60_000);
`);

let stack: Stack;
const {
  folder,
  run: astraml,
  write,
  environment,
  remove,
} = commandLine(() => ({
  ASTRAML_URL: stack.url,
  ASTRAML_TOKEN: stack.token,
}));

before(async () => {
  stack = await startStack({ gpus: 2 });
  await createProject(stack.client, 'p-demo', trainer);
});

after(async () => {
  await stack.stop();
  remove();
  await expectNoLeaks();
});

async function specOf(answer: string): Promise<Record<string, never>> {
  const [id] = answer.split(' ');
  const { job } = await stack.client.request<{ job: { spec: Record<string, never> } }>(
    'query ($id: ID!) { job(id: $id) { spec } }',
    { id },
  );
  return job.spec;
}

const submitted = /^job_[0-9a-z]+ p-demo\/\d+ QUEUED\n$/;

suite('submit', { concurrency: 3 }, () => {
  test('the documented command line submits a job', async () => {
    const [, ...args] = documentedLine.split(/\s+/);
    const { code, stdout, stderr } = await astraml(args);
    assert.equal(code, 0, stderr);
    assert.match(stdout, submitted);
    assert.deepEqual(await specOf(stdout), {
      project_id: 'p-demo',
      model: 'bert-base',
      dataset: 's3://bucket/dataset',
      resources: { gpus: 1 },
      hyperparams: { batch_size: 32, epochs: 5, lr: 3e-5 },
    });
  });

  test('the documented JSON submits a job, from a file and from stdin alike', async () => {
    const fromFile = await astraml(['submit', '-f', write('job.json', documentedJson)]);
    assert.match(fromFile.stdout, submitted);
    const fromStdin = await astraml(['submit', '-f', '-'], { input: documentedJson });
    assert.match(fromStdin.stdout, submitted);
    assert.deepEqual(await specOf(fromFile.stdout), JSON.parse(documentedJson));
    assert.deepEqual(await specOf(fromStdin.stdout), JSON.parse(documentedJson));
  });

  test('the documented YAML alone names every missing field at once', async () => {
    const { code, stdout, stderr } = await astraml(['submit', '-f', write('part.yaml', documentedYaml)]);
    assert.equal(code, 6);
    assert.equal(stdout, '');
    for (const field of ['project_id', 'model', 'dataset']) assert.match(stderr, new RegExp(`${field} is required`));
    assert.match(stderr, /3 problems/);
  });

  test('the documented YAML with its missing fields as flags is a schedule of them', async () => {
    const args = ['-p', 'p-demo', '--model', 'bert-base', '--dataset', 's3://bucket/dataset'];
    const file = write('whole.yaml', documentedYaml);
    const { code, stdout, stderr } = await astraml(['submit', '-f', file, ...args]);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^sch_[0-9a-z]{26} p-demo [a-z-]+ next \d{4}-\d\d-\d\dT\d\d:00:00\.000Z\n$/);

    const unscheduled = write('unscheduled.yaml', documentedYaml.replace(/schedule:\n.*\n/, ''));
    assert.equal((await astraml(['submit', '-f', unscheduled, ...args])).code, 0);
  });

  test('flags win over the file, and reach their place in the spec', async () => {
    const file = write('base.yaml', 'project_id: p-demo\nmodel: a\ndataset: d\nhyperparams: { lr: 1, beta: 2 }\n');
    const { code, stdout, stderr } = await astraml([
      ...['submit', '-f', file, '--model', 'm', '--lr', '3e-5', '--gpus', '0', '--set', 'beta=0.5', '--set', 'note=x'],
      ...['--set', 'early_stopping.patience=7', '--set', 'resources.labels=["a"]', '--env', 'A=b=c', '--tag', 't1'],
      ...[
        '--tag',
        't2',
        '--timeout',
        '1h30m',
        '--retries',
        '2',
        '--queue-timeout',
        '1h',
        '--on-cut',
        'stop',
        '--priority',
        '-5',
        '--name',
        'n',
        '--',
        'python',
        '--version',
      ],
    ]);
    assert.equal(code, 0, stderr);
    assert.deepEqual(await specOf(stdout), {
      project_id: 'p-demo',
      model: 'm',
      dataset: 'd',
      hyperparams: { lr: 3e-5, beta: 0.5, note: 'x', early_stopping: { patience: 7 } },
      resources: { gpus: 0, labels: ['a'] },
      env: [{ name: 'A', from: { value: 'b=c' } }],
      tags: ['t1', 't2'],
      timeout_seconds: 5400,
      max_retries: 2,
      queue_timeout_seconds: 3600,
      on_cut: 'stop',
      priority: -5,
      name: 'n',
      command: ['python', '--version'],
    });
  });

  test('a syntax error of the file has its line and column', async () => {
    const { code, stderr } = await astraml(['submit', '-f', write('bad.yaml', 'model: m\ndataset: [a\nname: n\n')]);
    assert.equal(code, 6);
    assert.match(stderr, /bad\.yaml, line 3, column 1: /);
  });

  test('a misspelt field is refused with the one that was meant', async () => {
    const { code, stderr } = await astraml(['submit', '-p', 'p-demo', '-f', '-'], { input: 'model: m\ndatset: d\n' });
    assert.equal(code, 6);
    assert.match(stderr, /datset is no field[^]*Did you mean "dataset"\?/);
    assert.match(stderr, /dataset is required/);
  });

  test('a dry run prints every value with its source and submits nothing', async () => {
    const args = ['submit', '-p', 'p-demo', '--model', 'dry', '--dataset', 'd', '--batch-size', '16', '--dry-run'];
    const { code, stdout, stderr } = await astraml(args);
    assert.equal(code, 0);
    assert.match(stdout, /^hyperparams\.batch_size\t16\tREQUEST$/m);
    assert.match(stdout, /^hyperparams\.lr_scheduler\tcosine\tDEFAULT$/m);
    assert.match(stderr, /Nothing was submitted/);
    assert.equal((await astraml(['jobs', '--model', 'dry', '--json=id'])).stdout, '[]\n');

    const refused = await astraml(['submit', '-p', 'p-none', '--model', 'm', '--dataset', 'd', '--dry-run']);
    assert.equal(refused.code, 3);
  });

  test('the same idempotency key names the same job; with another spec it is refused with what differs', async () => {
    const args = ['submit', '-p', 'p-demo', '--model', 'm', '--dataset', 'd', '--idempotency-key', 'once'];
    const first = await astraml(args);
    const again = await astraml(args);
    assert.equal(first.stdout.split(' ')[0], again.stdout.split(' ')[0]);
    const other = await astraml([...args, '--lr', '0.1']);
    assert.equal(other.code, 6);
    assert.match(other.stderr, /hyperparams\.lr differs/);
  });

  test('following prints the log, then how it ended, and mirrors it in the exit code', async () => {
    const args = ['submit', '-p', 'p-demo', '--dataset', 'd', '--gpus', '0', '-w'];
    const [good, bad, late] = await Promise.all([
      astraml([...args, '--model', 'learns']),
      astraml([...args, '--model', 'fails']),
      astraml([...args, '--model', 'waits', '--timeout', '1s']),
    ]);
    assert.equal(good.code, 0, good.stderr);
    assert.match(good.stdout, /^job_.* QUEUED\n[^]*^loss falls\n✓ p-demo\/\d+ \S+ SUCCEEDED after \S+\n$/m);
    assert.equal(bad.code, 100);
    assert.match(
      bad.stdout,
      /✗ p-demo\/\d+ \S+ FAILED after .* \(attempt 1 of 1\)\n {2}Exit code 3.*\n {2}hint {2}.*\n {2}log {3}astraml logs p-demo\/\d+ -n 50\n$/,
    );
    assert.equal(late.code, 104);
  });

  test('following as JSON is one object a line: the job, its lines, the job', async () => {
    const args = ['submit', '-p', 'p-demo', '--model', 'm', '--dataset', 'd', '--gpus', '0', '-w', '--json=state'];
    const { stdout } = await astraml(args);
    const events = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual(events[0], { __typename: 'Job', state: 'QUEUED' });
    assert.deepEqual(events.at(-1), { __typename: 'Job', state: 'SUCCEEDED' });
    assert.ok(events.slice(1, -1).every((event) => event['__typename'] === 'LogLine' && 'cursor' in event));
  });

  test('Ctrl-C while following leaves the job alone', async () => {
    const args = ['submit', '-p', 'p-demo', '--model', 'waits', '--dataset', 'd', '--gpus', '0', '-w'];
    const child = spawnNode([binary, ...args], { env: environment(), cwd: folder });
    const [, name = ''] = await child.untilLine(/(p-demo\/\d+) RUNNING/);
    child.kill('SIGINT');
    assert.deepEqual(await child.untilEnd(), { code: 130, signal: null });
    assert.match(child.output(), new RegExp(`Detached: ${name} goes on`));
    assert.match((await astraml(['jobs', 'show', name, '--json=state'])).stdout, /RUNNING/);
    const cancelled = await astraml(['cancel', name, '--wait', '--grace', '1s', '--reason', 'enough']);
    assert.equal(cancelled.stdout, `${name}\tCANCELLED\n`);
  });
});

suite('reading', { concurrency: 3 }, () => {
  let job: { id: string; number: number };

  before(async () => {
    job = await submit(stack.client, 'p-demo', { name: 'read-me', resources: { gpus: 0 }, tags: ['read'] });
    const { code } = await astraml(['logs', job.id, '-f', '--exit-status']);
    assert.equal(code, 0);
  });

  test('a job is named by id, by number, by project and number, and as the newest', async () => {
    const env = { ASTRAML_PROJECT: 'p-demo' };
    const names = [job.id, `${job.number}`, `p-demo/${job.number}`];
    for (const name of names) {
      const { stdout } = await astraml(['jobs', 'show', name, '--json=id'], { env });
      assert.deepEqual(JSON.parse(stdout), { id: job.id });
    }
    await createProject(stack.client, 'p-newest', trainer);
    const newestOf = ['jobs', 'show', '@last', '-p', 'p-newest', '--json=id'];
    assert.equal((await astraml(newestOf)).code, 3);
    await submit(stack.client, 'p-newest', { resources: { gpus: 64 } });
    const newest = await submit(stack.client, 'p-newest', { resources: { gpus: 64 } });
    assert.deepEqual(JSON.parse((await astraml(newestOf)).stdout), { id: newest.id });
    const unnamed = await astraml(['jobs', 'show', '1']);
    assert.equal(unnamed.code, 2);
    assert.match(unnamed.stderr, /Which project\?/);
  });

  test('a list is for programs: tab-separated, whole, with a header on request', async () => {
    const args = ['jobs', '-p', 'p-demo', '--tag', 'read', '--state', 'succeeded'];
    const { stdout } = await astraml([...args, '--header']);
    const [header, row] = stdout.split('\n').map((line) => line.split('\t'));
    assert.deepEqual(header, ['NUMBER', 'NAME', 'STATE', 'PROGRESS', 'LOSS', 'GPUS', 'AGE']);
    assert.deepEqual(row?.slice(0, 3), [`p-demo/${job.number}`, 'read-me', 'SUCCEEDED']);
    assert.equal(row?.[4], String(1 / 3));
    assert.match(row?.[6] ?? '', /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    assert.doesNotMatch((await astraml(args)).stdout, /NUMBER/);
  });

  test('JSON is one array or object with the fields of the API, chosen by name', async () => {
    const chosen = await astraml(['jobs', '--tag', 'read', '--json=number,state']);
    assert.deepEqual(JSON.parse(chosen.stdout), [{ number: job.number, state: 'SUCCEEDED' }]);
    const fields = (await astraml(['jobs', '--json='])).stdout.trim().split('\n');
    const [whole] = JSON.parse((await astraml(['jobs', '--tag', 'read', '--json'])).stdout) as object[];
    assert.deepEqual(Object.keys(whole ?? {}), fields);
    const unknown = await astraml(['jobs', '--json=stat']);
    assert.equal(unknown.code, 2);
    assert.match(unknown.stderr, /no field "stat"/);
  });

  test('a page shows the state, the metrics and the end of the log', async () => {
    const { stdout } = await astraml(['jobs', 'show', job.id]);
    assert.match(stdout, /^state\tSUCCEEDED$/m);
    assert.match(stdout, /^train\/loss\t0\.3333333333333333\t/m);
    assert.match(stdout, /^loss falls$/m);
  });

  test('the spec comes back as YAML that can be submitted again', async () => {
    const { stdout } = await astraml(['jobs', 'show', job.id, '--spec']);
    const again = await astraml(['submit', '-f', '-'], { input: stdout });
    assert.match(again.stdout, submitted);
    const config = await astraml(['jobs', 'show', job.id, '--config']);
    assert.match(config.stdout, /^hyperparams\.batch_size\t32\tDEFAULT$/m);
  });

  test('a log is read from its end, by stream and text, and on behind a cursor', async () => {
    assert.equal((await astraml(['logs', job.id, '-n', '1'])).stdout, 'loss falls\n');
    assert.equal((await astraml(['logs', job.id, '--stream', 'stderr'])).stdout, '');
    assert.equal((await astraml(['logs', job.id, '--grep', 'LOSS', '--stream', 'stdout'])).stdout, 'loss falls\n');
    const { stdout } = await astraml(['logs', job.id, '--json']);
    const [first, ...others] = JSON.parse(stdout) as { cursor: string; seq: number }[];
    const behind = await astraml(['logs', job.id, '--after', first?.cursor ?? '', '--json']);
    assert.deepEqual(JSON.parse(behind.stdout), others);
    assert.equal((await astraml(['logs', job.id, '--after', 'nonsense'])).code, 2);
  });

  test('metrics are summed up, and watched window by window', async () => {
    const { stdout } = await astraml(['metrics', job.id]);
    assert.equal(stdout, `train/loss\t${1 / 3}\t${1 / 3}\t1\t3\n`);
    const watched = await astraml(['metrics', job.id, '-w', '--json=name,count,provisional']);
    assert.deepEqual(JSON.parse(watched.stdout), { name: 'train/loss', count: 3, provisional: false });
  });

  test('defaults are shown with their source, of a version and of a project', async () => {
    const documented = await astraml(['defaults', '--version', 'v2.1']);
    assert.match(documented.stdout, /^hyperparams\.early_stopping\.patience\t5\tDEFAULT$/m);
    assert.equal((await astraml(['defaults', 'show', '-p', 'p-demo'])).code, 0);
    assert.match((await astraml(['defaults', 'list'])).stdout, /^v2\.1\tcurrent\t/);
    assert.equal((await astraml(['defaults', '--version', 'v9.9'])).code, 3);
  });

  test('a stream that is cut says so, goes on, and repeats nothing', async () => {
    const command = script(`
      console.log('before');
      const { existsSync } = await import('node:fs');
      while (!existsSync(${JSON.stringify(join(folder, 'go'))})) await new Promise((resolve) => setTimeout(resolve, 50));
      console.log('behind');
    `);
    const { id } = await submit(stack.client, 'p-demo', { command, resources: { gpus: 0 } });
    await using proxy = await Proxy.open(Number(new URL(stack.url).port));
    const env = environment({ ASTRAML_URL: `http://127.0.0.1:${proxy.port}` });
    const child = spawnNode([binary, 'logs', id, '-f', '--exit-status'], { env, cwd: folder });
    await child.untilLine(/^before$/);
    proxy.cut();
    await child.untilLine(/connection lost/);
    await child.untilLine(/connection restored/);
    write('go', '');
    await child.untilLine(/^behind$/);
    assert.deepEqual(await child.untilEnd(), { code: 0, signal: null });
    assert.equal(child.output().match(/^before$/gm)?.length, 1);
  });
});

suite('exit codes and messages', { concurrency: 3 }, () => {
  test('a mistake on the command line is 2 and names what was meant', async () => {
    const command = await astraml(['sumbit']);
    assert.equal(command.code, 2);
    assert.match(command.stderr, /Did you mean submit\?/);
    const flag = await astraml(['submit', '--modle', 'm']);
    assert.equal(flag.code, 2);
    assert.match(flag.stderr, /Did you mean --model\?/);
    const nested = await astraml(['jobs', 'shwo', '1']);
    assert.equal(nested.code, 2);
    assert.match(nested.stderr, /Did you mean "show"\?/);
    const set = await astraml(['submit', '--set', 'resource.gpus=2']);
    assert.equal(set.code, 2);
    assert.match(set.stderr, /Did you mean "resources\.gpus"\?/);
    const wordless = await astraml(['submit', '-p', 'p-demo', 'train.py']);
    assert.equal(wordless.code, 2);
    assert.match(wordless.stderr, /behind --/);
    for (const args of [
      ['submit', '--gpus', 'two'],
      ['submit', '--timeout', 'soon'],
      ['jobs', '-n', '0'],
    ]) {
      assert.equal((await astraml(args)).code, 2, args.join(' '));
    }
    assert.equal((await astraml(['submit', '-f', 'missing.yaml'])).code, 2);
  });

  test('flags that cannot be read are named together', async () => {
    const submit = await astraml(['submit', '--gpus', 'x', '--epochs', 'y', '--timeout', 'soon', '--set', 'z']);
    assert.equal(submit.code, 2);
    for (const part of [/has 4 problems/, /--gpus takes/, /--epochs takes/, /--timeout takes .*90s/, /--set takes/]) {
      assert.match(submit.stderr, part);
    }
    const dev = await astraml(['dev', '--port', 'x', '--gpus', 'y']);
    assert.deepEqual([dev.code, dev.stderr.split('\n').length], [2, 4], dev.stderr);
    const one = await astraml(['submit', '--gpus', 'x']);
    assert.equal(one.stderr, 'error: --gpus takes a number, got "x".\n');
  });

  test('what is not there is 3, what may not be done 4, what is refused 6', async () => {
    assert.equal((await astraml(['jobs', 'show', 'p-demo/999999'])).code, 3);
    assert.equal((await astraml(['jobs', '-p', 'p-none'])).code, 3);
    const denied = await astraml(['jobs'], { env: { ASTRAML_TOKEN: 'wrong' } });
    assert.equal(denied.code, 4);
    assert.match(denied.stderr, /^error: .*token/);
    const ended = await submit(stack.client, 'p-demo', { resources: { gpus: 0 } });
    await astraml(['logs', ended.id, '-f']);
    assert.equal((await astraml(['cancel', ended.id])).code, 6);
  });

  test('of several jobs those that can be cancelled are, and the exit code tells of the other', async () => {
    const waiting = await submit(stack.client, 'p-demo', { resources: { gpus: 64 } });
    const { code, stdout, stderr } = await astraml(['cancel', 'p-demo/999999', waiting.id]);
    assert.equal(code, 3);
    assert.equal(stdout, `p-demo/${waiting.number}\tCANCELLED\n`);
    assert.match(stderr, /p-demo\/999999: error: /);
  });

  test('without a token it says what to set', async () => {
    const { code, stdout, stderr } = await astraml(['jobs'], { env: { ASTRAML_TOKEN: undefined } });
    assert.equal(code, 4);
    assert.equal(stdout, '');
    assert.match(stderr, /not signed in[^]*ASTRAML_TOKEN/);
  });

  test('a gateway that is away is 5', async () => {
    const { code, stderr } = await astraml(['jobs', '--server', 'http://127.0.0.1:1']);
    assert.equal(code, 5);
    assert.match(stderr, /waiting for http:\/\/127\.0\.0\.1:1[^]*cannot be reached/);
    assert.equal((await astraml(['jobs', '--server', 'nowhere'])).code, 2);
  });

  test('help and version are answers on stdout; --debug adds the stack', async () => {
    for (const args of [[], ['--help'], ['submit', '--help'], ['--version'], ['jobs', 'show', '-h']]) {
      const { code, stdout, stderr } = await astraml(args);
      assert.equal(code, 0);
      assert.equal(stderr, '');
      assert.notEqual(stdout, '');
    }
    const { stderr } = await astraml(['jobs', 'show', 'nonsense', '--debug']);
    assert.match(stderr, /names no job[^]*\n {4}at /);
  });
});

suite('signing in', () => {
  test('client.json of a folder above signs in, for its own server only', async () => {
    const home = join(folder, 'home');
    const inside = join(home, 'a', 'b');
    mkdirSync(join(home, '.astraml'), { recursive: true });
    mkdirSync(inside, { recursive: true });
    const file = join(home, '.astraml', 'client.json');
    const content = JSON.stringify({ url: stack.url, token: stack.token, project: 'p-demo' });
    writeFileSync(file, content, { mode: 0o600 });
    const env = { ASTRAML_URL: undefined, ASTRAML_TOKEN: undefined };
    assert.equal((await astraml(['logs', '-n', '1'], { env, cwd: inside })).code, 0);
    const elsewhere = await astraml(['jobs', '--server', 'http://127.0.0.1:1'], { env, cwd: inside });
    assert.equal(elsewhere.code, 4);

    rmSync(file);
    writeFileSync(file, content, { mode: 0o644 });
    const open = await astraml(['jobs'], { env, cwd: inside });
    assert.equal(open.code, 4);
    assert.match(open.stderr, /can be read by others[^]*chmod 600/);
  });

  test('a token of the environment is not sent where a file says, and no file names a server elsewhere', async () => {
    const home = join(folder, 'cloned');
    mkdirSync(join(home, '.astraml'), { recursive: true });
    const file = join(home, '.astraml', 'client.json');
    const asked: string[] = [];
    const stranger = createServer((request, response) => {
      asked.push(`${request.url} ${request.headers.authorization}`);
      response.end('{}');
    });
    await new Promise<void>((resolve) => stranger.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = stranger.address() as AddressInfo;
      const write = (url: string) => writeFileSync(file, JSON.stringify({ url, token: 'theirs' }), { mode: 0o600 });
      write(`http://127.0.0.1:${port}`);
      const sent = await astraml(['jobs'], { env: { ASTRAML_URL: undefined, ASTRAML_TOKEN: 'mine' }, cwd: home });
      assert.deepEqual([sent.code, asked], [4, []]);
      assert.match(sent.stderr, /ASTRAML_TOKEN is set without a server[^]*Set ASTRAML_URL/);
      write('http://stranger.example:4000');
      const led = await astraml(['jobs'], { env: { ASTRAML_URL: undefined, ASTRAML_TOKEN: undefined }, cwd: home });
      assert.equal(led.code, 4);
      assert.match(led.stderr, /stranger\.example:4000, which is not on this machine/);
      const named = await astraml(['jobs'], { cwd: home });
      assert.equal(named.code, 0, 'who names the server is not led');
    } finally {
      stranger.close();
    }
  });
});

suite('text', () => {
  test('a terminal gets no control sequence but colours, whatever stands in a cell, a line or a warning', async () => {
    const nasty = 'a\u001b]52;c;AAAA\u0007b\u001b[2Jc\u009b31md\u202ee\tf\ng';
    const tty = fakeStdout(true);
    await tty.output.table(['N', 'Z'], [[nasty, 'x']], { header: false });
    await tty.output.print(nasty);
    await tty.output.printJson({ [nasty]: nasty });
    /* eslint-disable no-control-regex */
    const withoutColours = tty.text().replaceAll(/\u001b\[[0-9;]*m/g, '');
    assert.doesNotMatch(withoutColours, /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202e]/);
    /* eslint-enable no-control-regex */
    assert.equal(tty.text().split('\n')[0]?.startsWith('ab'), true);
    const piped = fakeStdout(false);
    await piped.output.table(['N', 'Z'], [[nasty, 'x']]);
    assert.equal(piped.text().split('\n').length, 2, 'a row is one line');
    assert.equal(piped.text().split('\t').length, 2);
  });

  test('a terminal gets aligned columns, a header, and a glyph beside each colour', async () => {
    const rows = [
      ['1', 'a', 'x'],
      ['20', '漢字', 'y'],
    ];
    const tty = fakeStdout(true);
    await tty.output.table(['N', 'NAME', 'Z'], rows);
    assert.equal(tty.text(), 'N   NAME  Z\n1   a     x\n20  漢字  y\n');
    assert.match(stateCell(tty.output, 'FAILED'), /✗.*FAILED/);

    const piped = fakeStdout(false);
    await piped.output.table(['N', 'NAME', 'Z'], rows);
    assert.equal(piped.text(), '1\ta\tx\n20\t漢字\ty\n');
    assert.equal(stateCell(piped.output, 'FAILED'), 'FAILED');
  });

  test('colours follow FORCE_COLOR and NO_COLOR', async () => {
    const coloured = await astraml(['jobs', 'show', 'p-demo/1'], { env: { FORCE_COLOR: '1' } });
    assert.ok(coloured.stdout.includes('\u001b['));
    const plain = await astraml(['jobs', 'show', 'p-demo/1', '--no-color'], { env: { FORCE_COLOR: '1' } });
    assert.ok(!plain.stdout.includes('\u001b['));
  });

  test('of what a job writes, a terminal gets only the text and its colours', () => {
    assert.equal(cleanLine('\u001b[1;31mred\u001b[0m', true), '\u001b[1;31mred\u001b[0m\u001b[0m');
    assert.equal(cleanLine('\u001b[1;31mred\u001b[0m', false), 'red');
    const harmful = [
      '\u001b]0;title\u0007a',
      '\u001b]8;;http://x\u001b\\a\u001b]8;;\u001b\\',
      '\u001b]52;c;aGk=\u0007a',
      '\u001b[2J\u001b[10;10Ha',
      '\u009b2Ja',
      '\u001bPq#0\u001b\\a',
      '\u001bca',
      'a\u0008\u0007\u007f',
      'a\u001b]0;never ends',
      'a\u001b[',
      'a\u001b',
      '\u001b[>4;1ma',
    ];
    for (const line of harmful) assert.equal(cleanLine(line, true), 'a', JSON.stringify(line));
    assert.equal(cleanLine('a\u202eb\u2066', true), 'a\\u202eb\\u2066');
    assert.equal(cleanLine('a\tb', true), 'a\tb');
    assert.equal(cleanText('a\tb\u001b[31m\nc'), 'a b\nc');
  });

  test('durations are read and written in the units of people', () => {
    assert.deepEqual(['90', '90s', '2h', '1h30m', '1d', 'soon', '', '-1'].map(parseDuration), [
      ...[90, 90, 7200, 5400, 86_400, null, null, null],
    ]);
    assert.deepEqual([400, 12_000, 192_000, 187_200_000, 3_600_000].map(formatDuration), [
      ...['0.4s', '12s', '3m 12s', '2d 4h', '1h'],
    ]);
    assert.equal(textWidth('\u001b[31mé漢\u001b[0m'), 3);
  });
});

function fakeStdout(isTTY: boolean) {
  let written = '';
  const stdout = Object.assign(
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        written += chunk.toString();
        done();
      },
    }),
    { isTTY },
  );
  const output = createOutput({ stdout, stderr: stdout, quiet: false, json: null });
  return { output, text: () => written };
}
