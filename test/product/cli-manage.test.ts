// `astraml projects`, `tokens`, `runners`, `whoami`, `events`, and `edit`, `retry` and `wait` of jobs, as people and scripts meet
// them: a process of its own against a real gateway with a real runner.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { toWords } from '../../src/cli/projects.ts';
import { commandLine } from '../support/cli.ts';
import { createProject, followLog, jobState, script, type Stack, startStack, submit } from '../support/stack.ts';

const project = 'p-manage';
const trainer = script(`
  if (process.env.ASTRAML_MODEL === 'fails') process.exit(3);
  if (process.env.ASTRAML_MODEL === 'waits') setTimeout(() => {}, 60_000);
`);

let stack: Stack;
const { run, remove, folder } = commandLine(() => ({
  ASTRAML_URL: stack.url,
  ASTRAML_TOKEN: stack.token,
  ASTRAML_PROJECT: project,
}));
before(async () => {
  stack = await startStack({ gpus: 2 });
  await createProject(stack.client, project, trainer);
});
after(async () => {
  await stack.stop();
  remove();
  await expectNoLeaks();
});

const json = (text: string) => JSON.parse(text) as Record<string, never>;

suite('projects', () => {
  test('are created, shown, changed, archived and brought back', async () => {
    const created = await run(['projects', 'create', 'p-new', '--name', 'New', '--command', "python 'my train.py'"]);
    assert.equal(created.code, 0, created.stderr);
    assert.match(created.stdout, /^project\tp-new\nname\tNew\ncommand\tpython my train\.py\n/);
    const shown = await run(['projects', 'show', 'p-new', '--json=command,archivedAt']);
    assert.deepEqual(json(shown.stdout), { command: ['python', 'my train.py'], archivedAt: null });
    const set = await run(['projects', 'set', '-p', 'p-new', '--command', '', '--json=id,command']);
    assert.deepEqual(json(set.stdout), { id: 'p-new', command: null }, set.stderr);

    assert.match((await run(['projects', 'archive', 'p-new'])).stdout, /\narchived\t20/);
    const refused = await run(['submit', '-p', 'p-new', '--model', 'm', '--dataset', 'd', '--', 'true']);
    assert.deepEqual([refused.code, /is archived/.test(refused.stderr)], [6, true], refused.stderr);
    assert.equal((await run(['projects', 'archive', 'p-new', '--undo'])).code, 0);

    const listed = await run(['projects', '--header']);
    assert.match(listed.stdout, /^ID\tNAME\tCOMMAND\tSCOPES\tCREATED\tARCHIVED\n/);
    assert.match(listed.stdout, /\np-new\tNew\t\tADMIN,READ,WRITE\t20[^\t]+\t\n/);
  });

  test('that are not there, exist already, or are given no change are told apart by the exit code', async () => {
    assert.equal((await run(['projects', 'show', 'p-none'])).code, 3);
    assert.equal((await run(['projects', 'create', project])).code, 6);
    assert.equal((await run(['projects', 'set'])).code, 2);
    assert.equal((await run(['projects', 'set', '--command', "python 'x"])).code, 2);
  });

  test('take a command in the words of a shell', () => {
    assert.deepEqual(toWords(`python  train.py --name "a \\"b\\"" 'c d'e f\\ g ''`), [
      ...['python', 'train.py', '--name', 'a "b"', 'c de', 'f g', ''],
    ]);
    assert.deepEqual(toWords('  '), []);
  });
});

suite('tokens', () => {
  test('are printed once, work as they were made, are listed without their text, and revoked', async () => {
    const created = await run(['tokens', 'create', '--scope', 'write', '--expires', '90d', '--name', 'ci']);
    assert.equal(created.code, 0, created.stderr);
    assert.match(created.stdout, /^astraml_\S+\n$/, 'the text alone, for scripts');
    const env = { ASTRAML_TOKEN: created.stdout.trim() };
    const me = json((await run(['whoami', '--json'], { env })).stdout) as unknown as {
      id: string;
      scopes: string[];
      server: string;
      expiresAt: string;
    };
    assert.deepEqual([me.scopes, me.server], [['WRITE'], stack.url]);
    assert.ok(Math.abs(Date.parse(me.expiresAt) - Date.now() - 90 * 86_400_000) < 60_000);

    const listed = await run(['tokens', '--json=id,name,scopes']);
    assert.deepEqual(JSON.parse(listed.stdout), [{ id: me.id, name: 'ci', scopes: ['WRITE'] }]);
    assert.equal(listed.stdout.includes(env.ASTRAML_TOKEN), false);
    assert.equal((await run(['tokens'], { env })).code, 4, 'who may not administer them is told so');

    assert.deepEqual(await run(['tokens', 'revoke', me.id]), {
      code: 0,
      stdout: `${me.id} revoked\n`,
      stderr: `server  ${stack.url}\n`,
    });
    const refused = await run(['whoami'], { env });
    assert.deepEqual([refused.code, /was revoked/.test(refused.stderr)], [4, true], refused.stderr);
    assert.equal((await run(['tokens', 'revoke', 'tok_none'])).code, 3);
  });

  test('that are revoked name the schedules that they leave', async () => {
    const made = await run(['tokens', 'create', '--scope', 'write', '--json=id,secret']);
    const { id, secret } = json(made.stdout) as unknown as { id: string; secret: string };
    const spec = JSON.stringify({ model: 'm', dataset: 'd', schedule: { cron: '0 0 1 1 *', name: 'nightly' } });
    const env = { ASTRAML_TOKEN: secret };
    const created = await run(['schedules', 'create', '-f', '-', '--name', 'nightly'], { env, input: spec });
    assert.equal(created.code, 0, created.stderr);
    const revoked = await run(['tokens', 'revoke', id]);
    assert.equal(revoked.stdout, `${id} revoked\n`);
    assert.match(revoked.stderr, /Schedule nightly \(sch_\w+\) of p-manage, which it created, goes on/);
  });

  test('of the platform are apart; a scope that there is not is a mistake of the command line', async () => {
    const runner = await run(['tokens', 'create', '--platform', '--scope', 'runner', '--json=scopes,project,secret']);
    const { secret, ...shown } = json(runner.stdout) as unknown as { secret: string };
    assert.deepEqual(shown, { scopes: ['RUNNER'], project: null });
    assert.match(secret, /^astraml_/);
    assert.match((await run(['tokens', '--platform'])).stdout, /\trunner\tastraml_\S+\tRUNNER\t\t.*\tall\n/);
    const bound = await run([
      'tokens',
      'create',
      '-p',
      `${project},p-new`,
      '--scope',
      'runner',
      '--json=projects,secret',
    ]);
    const { secret: text, projects } = json(bound.stdout) as unknown as { secret: string; projects: object[] };
    assert.deepEqual(projects, [{ id: project }, { id: 'p-new' }], bound.stderr);
    assert.match((await run(['tokens', '--platform'])).stdout, new RegExp(`\\t${project},p-new\n`));
    const env = { ASTRAML_TOKEN: text };
    assert.match((await run(['whoami'], { env })).stdout, /\nscopes\tRUNNER\nfor\tsome projects\n/);
    const wrong = await run(['tokens', 'create', '--scope', 'wirte']);
    assert.deepEqual([wrong.code, /Did you mean "write"/.test(wrong.stderr)], [2, true]);
  });
});

test('whoami says who, where and what for; runners lists the machines', async () => {
  const { code, stdout } = await run(['whoami']);
  assert.equal(code, 0);
  assert.match(stdout, new RegExp(`^token\\t.*\\(tok_.*\\nserver\\t${stack.url}\\nscopes\\tADMIN\\n`));
  const listed = await run(['runners', '--json=state,gpus']);
  const [runner] = JSON.parse(listed.stdout) as { state: string; gpus: object[] }[];
  assert.deepEqual([runner?.state, runner?.gpus.length], ['ONLINE', 2]);
  assert.match((await run(['runners'])).stdout, /^\S+\tONLINE\t2\t0\t0\/4\tvirtual\t\tall\t20/);
});

suite('what changes something', () => {
  test('names the server on stderr, once, and what only reads does not', async () => {
    const made = await run(['tokens', 'create', '--scope', 'read', '--json=name']);
    assert.deepEqual(json(made.stdout), { name: 'read' }, made.stderr);
    assert.match(made.stderr, new RegExp(`^server  ${stack.url}\nToken tok_`));
    const withPassword = await run(['whoami', '--server', 'http://someone:password@127.0.0.1:1']);
    assert.deepEqual([withPassword.code, withPassword.stderr.includes('password@')], [2, false], withPassword.stderr);
    const twice = await run(['projects', 'set', project, '--name', 'A']);
    assert.equal(twice.stderr, `server  ${stack.url}\n`);
    assert.equal((await run(['projects', 'set', project, '--name', 'B', '-q'])).stderr, '');
    assert.equal((await run(['projects', 'show', project])).stderr, '');
  });

  test('names it before a value is read, and a refused change names it too', async () => {
    const { code, stderr } = await run(['secrets', 'set', 'EMPTY'], { input: '' });
    assert.deepEqual([code, stderr.startsWith(`server  ${stack.url}\n`)], [2, true], stderr);
    const refused = await run(['projects', 'create', project]);
    assert.deepEqual([refused.code, refused.stderr.startsWith(`server  ${stack.url}\n`)], [6, true], refused.stderr);
  });
});

test('no path, name or error of others reaches a terminal uncleaned', async () => {
  const hostile = '\u001b]0;title\u0007\u202egpj';
  const data = join(folder, hostile);
  mkdirSync(data);
  writeFileSync(join(data, 'client.json'), '{}', { mode: 0o644 });
  const open = { ASTRAML_DATA_DIR: data, ASTRAML_URL: undefined, ASTRAML_TOKEN: undefined };
  for (const [args, env, what] of [
    [['jobs'], open, /can be read by others/],
    [['jobs', 'show', hostile], {}, /names no job/],
    [['projects', 'show', hostile], {}, /does not exist/],
    [['submit', '-f', `${hostile}.yaml`], {}, /gpj\.yaml/],
    [[hostile], {}, /unknown command/],
    [['jobs', `--${hostile}`], {}, /unknown option/],
  ] as const) {
    const { stderr } = await run([...args], { env });
    assert.match(stderr, what);
    // eslint-disable-next-line no-control-regex
    assert.doesNotMatch(stderr, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e]/, JSON.stringify(stderr));
    assert.match(stderr, /\\u202egpj/, 'shown as what it is');
  }
});

suite('events', () => {
  type Event = { type: string; actor: { name: string } | null; message: string; job: { number: number } | null };
  const events = async (args: string[], env = {}) => {
    const { code, stdout, stderr } = await run(['events', ...args, '--json=type,actor,message,job,time'], { env });
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout) as (Event & { time: string })[];
  };

  test('say who did what to a project, a job and the platform, and only to those who may know', async () => {
    const { id, number } = await submit(stack.client, project, { resources: { gpus: 64 } });
    await run(['jobs', 'edit', id, '--tag', 'seen']);
    await run(['cancel', id]);
    const made = await run(['tokens', 'create', '--scope', 'read', '--name', 'auditor']);
    const ofJob = await events([String(number)]);
    const types = ofJob.map(({ type }) => type);
    assert.deepEqual(types, ['SUBMITTED', 'EDITED', 'STATE_CHANGED']);
    const all = await events(['--all']);
    assert.deepEqual(all[0]?.type, 'PROJECT_CREATED', 'oldest first');
    assert.deepEqual(
      [all.at(-1)?.type, all.at(-1)?.message],
      ['TOKEN_CREATED', 'Token auditor was created with READ.'],
    );
    assert.deepEqual(
      all.filter(({ job }) => job?.number === number).map(({ type }) => type),
      types,
    );
    assert.ok(all.every(({ time, message }) => time && message));
    assert.deepEqual(await events(['-n', '2']), all.slice(-2));
    assert.deepEqual(await events(['--type', 'edited,token-created', '-n', '1']), all.slice(-1));
    assert.deepEqual(await events(['--since', all.at(-2)?.time ?? '']), all.slice(-2));
    assert.deepEqual(await events(['--since', '1h']), all);
    assert.ok((await events(['--platform'])).every(({ job }) => job === null));

    const env = { ASTRAML_TOKEN: made.stdout.trim() };
    assert.ok(!(await events(['--all'], env)).some(({ type }) => /^(TOKEN|SECRET)_/.test(type)));
    assert.equal((await run(['events', '--platform'], { env })).code, 4);
    const table = await run(['events', '-n', '1', '--header']);
    assert.match(
      table.stdout,
      /^TIME\tWHO\tTYPE\tJOB\tWHAT\n20\S+\t[^\t]+\tTOKEN_CREATED\t\tToken auditor was created/,
    );
  });

  test('of a type or since a time that there is not are a mistake of the command line', async () => {
    for (const [args, hint] of [
      [['--type', 'token-craeted'], /Did you mean "token-created"/],
      [['--since', 'yesterday'], /For example 30m, 24h/],
      [['@last', '--platform'], /not both/],
      [['@last', '--type', 'policy-set'], /no type of such an event/],
    ] as const) {
      const { code, stderr } = await run(['events', ...args]);
      assert.deepEqual([code, hint.test(stderr)], [2, true], stderr);
    }
    assert.equal((await run(['events', '-p', 'p-none'])).code, 3);
  });
});

suite('jobs', () => {
  test('edit changes what is said of a job, and says what', async () => {
    const { id, number } = await submit(stack.client, project, { resources: { gpus: 64 } });
    const edited = await run(['jobs', 'edit', String(number), '--tag', 'a', '--tag', 'b', '--priority', '-5']);
    assert.deepEqual(edited, {
      code: 0,
      stdout: `job\t${project}/${number}\ntags\ta,b\npriority\t-5\n`,
      stderr: `server  ${stack.url}\n`,
    });
    const none = await run(['jobs', 'edit', id, '--tag', '', '--notes', 'n', '--json=tags,notes']);
    assert.deepEqual(json(none.stdout), { tags: [], notes: 'n' });
    assert.equal((await run(['jobs', 'edit', id])).code, 2);
    await run(['cancel', id]);
    assert.equal((await run(['jobs', 'edit', id, '--priority', '1'])).code, 6);
  });

  test('retry submits it again with changes, and follows it to its end', async () => {
    const first = await submit(stack.client, project, { model: 'fails', hyperparams: { lr: 0.5 } });
    await followLog(stack.client, first.id);
    const again = await run(['retry', first.id, '--set', 'batch_size=16', '--gpus', '0', '-w']);
    assert.equal(again.code, 100, again.stderr);
    const { job } = await stack.client.request<{ job: object }>(
      `query ($id: ID!) { job(id: $id) {
        retriedFrom { id } hyperparams { batchSize lr } resources { gpus } } }`,
      { id: again.stdout.split(' ')[0] },
    );
    const hyperparams = { batchSize: 16, lr: 0.5 };
    assert.deepEqual(job, { retriedFrom: { id: first.id }, hyperparams, resources: { gpus: 0 } });
    assert.equal((await run(['retry', first.id, '--set', 'metrics.window_seconds=5'])).code, 2);
    const waiting = await submit(stack.client, project, { resources: { gpus: 64 } });
    assert.equal((await run(['retry', waiting.id])).code, 6, 'it has not ended');
    await run(['cancel', waiting.id]);
  });

  test('wait mirrors how they ended, and gives up with 101 when told to', async () => {
    const good = await submit(stack.client, project);
    const bad = await submit(stack.client, project, { model: 'fails' });
    const both = await run(['wait', good.id, bad.id, '-q']);
    const lines = [`${project}/${good.number}\tSUCCEEDED`, `${project}/${bad.number}\tFAILED`, ''];
    assert.deepEqual([both.code, both.stdout.split('\n')], [100, lines], both.stderr);
    assert.equal((await run(['wait', good.id])).code, 0);

    const long = await submit(stack.client, project, { model: 'waits' });
    const late = await run(['wait', long.id, '--timeout', '1s']);
    assert.deepEqual([late.code, late.stdout, /go on/.test(late.stderr)], [101, '', true], late.stderr);
    const any = await run(['wait', long.id, good.id, '--any', '--json=state']);
    assert.deepEqual([any.code, JSON.parse(any.stdout)], [0, [{ state: 'SUCCEEDED' }]]);
    await run(['cancel', long.id, '--wait']);
    assert.equal((await jobState(stack.client, long.id)).state, 'CANCELLED');
    assert.equal((await run(['wait', long.id])).code, 103);
  });
});
