// `astraml policies` as people and scripts meet it: a process of its own against a real gateway.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { commandLine } from '../support/cli.ts';
import { adminToken, createProject, createToken, dataOf, type Door, openDoor } from '../support/door.ts';

const project = 'p-policies';

let door: Door;
const { run, write, remove } = commandLine(() => ({
  ASTRAML_URL: door.url,
  ASTRAML_TOKEN: adminToken,
  ASTRAML_PROJECT: project,
}));
before(async () => {
  door = await openDoor();
  await createProject(door.port, project);
});
after(async () => {
  await door.close();
  remove();
  await expectNoLeaks();
});

/** Runs `astraml policies …`, as the administrator unless a token is named. */
const policies = (args: string[], { input = '', token = adminToken } = {}) =>
  run(['policies', ...args], { input, env: { ASTRAML_TOKEN: token } });

/** What the gateway has. */
async function rulesNow(): Promise<{ revision: number; rules: Record<string, unknown>[] }> {
  const query = `{ policy(projectId: "${project}") { revision rules { path default hasDefault min max allowed required enforcement message } } }`;
  return (await dataOf(door.port, { query }))['policy'] as unknown as Awaited<ReturnType<typeof rulesNow>>;
}

const job = `model: bert-base
dataset: s3://bucket/dataset
hyperparams: { epochs: 50, lr_scheduler: linear }
`;

suite('policies', () => {
  test('of a new project are none', async () => {
    const { code, stdout, stderr } = await policies([]);
    assert.deepEqual([code, stdout], [0, '']);
    assert.match(stderr, /Policy of p-policies, revision 0: no rules/);
  });

  test('set changes one rule and keeps the others; list and --json show them', async () => {
    const first = await policies(['set', 'hyperparams.epochs', '--max', '20']);
    assert.deepEqual(first, { code: 0, stdout: 'p-policies revision 1, 1 rule\n', stderr: `server  ${door.url}\n` });
    const flags = ['--default', 'cosine', '--allowed', 'cosine,constant', '--message', 'Ask the team.'];
    const second = await policies(['set', 'hyperparams.lr_scheduler', ...flags, '--json=revision,rules']);
    assert.equal((JSON.parse(second.stdout) as { revision: number }).revision, 2);
    await policies(['set', 'hyperparams.epochs', '--min', '2', '--max', '20', '--required']);

    const listed = await policies(['list', '--header']);
    assert.deepEqual(listed.stdout.split('\n'), [
      'PATH\tDEFAULT\tMIN\tMAX\tALLOWED\tREQUIRED\tVIOLATED\tMESSAGE',
      'hyperparams.epochs\t\t2\t20\t\trequired\tdeny\t',
      'hyperparams.lr_scheduler\t"cosine"\t\t\tcosine,constant\t\tdeny\tAsk the team.',
      '',
    ]);
    const json = await policies(['--json=path,default,max']);
    assert.deepEqual(JSON.parse(json.stdout), [
      { path: 'hyperparams.epochs', default: null, max: 20 },
      { path: 'hyperparams.lr_scheduler', default: 'cosine', max: null },
    ]);
    assert.equal((await rulesNow()).revision, 3);
  });

  test('test prints every violation and exits with 6; without any it is silent', async () => {
    const bad = await policies(['test', '-f', write('job.yaml', job)]);
    assert.equal(bad.code, 6, bad.stderr);
    assert.deepEqual(bad.stdout.split('\n'), [
      "hyperparams.epochs\t50\tMAX\tepochs 50 is above the project's maximum 20.",
      'hyperparams.lr_scheduler\tlinear\tALLOWED\tAsk the team.',
      '',
    ]);
    assert.match(bad.stderr, /job.yaml: 2 violation\(s\) of policy revision 3/);
    const json = await policies(['test', '-f', '-', '--json=path,kind'], { input: job });
    assert.equal(json.code, 6);
    assert.deepEqual(JSON.parse(json.stdout), [
      { path: 'hyperparams.epochs', kind: 'MAX' },
      { path: 'hyperparams.lr_scheduler', kind: 'ALLOWED' },
    ]);
    const good = await policies([
      'test',
      '-f',
      write('good.yaml', 'model: m\ndataset: d\nhyperparams: { epochs: 3 }\n'),
    ]);
    assert.deepEqual([good.code, good.stdout], [0, ''], good.stderr);
  });

  test('unset removes one rule, and says so when there is none', async () => {
    const none = await policies(['unset', 'epochs']);
    assert.equal(none.code, 3);
    assert.match(none.stderr, /Did you mean "hyperparams.epochs"/);
    const gone = await policies(['unset', 'hyperparams.epochs']);
    assert.deepEqual([gone.code, gone.stdout], [0, 'p-policies revision 4, 1 rule\n'], gone.stderr);
  });

  test('apply replaces all rules, from YAML, from what list prints, and names every problem', async () => {
    const file = write(
      'rules.yaml',
      '- { path: hyperparams.epochs, default: 3, max: 20 }\n- { path: model, allowed: [a] }\n',
    );
    assert.equal((await policies(['apply', '-f', file])).stdout, 'p-policies revision 5, 2 rules\n');
    const { stdout: printed } = await policies(['list', '--json']);
    const again = await policies(['apply', '-f', '-'], { input: printed });
    assert.equal(again.stdout, 'p-policies revision 5, 2 rules\n', 'the same rules make no new revision');

    const wrong = write(
      'wrong.json',
      '{"rules": [{"path": "epochs", "max": 1}, {"path": "priority", "min": 3, "max": 2}]}',
    );
    const refused = await policies(['apply', '-f', wrong]);
    assert.equal(refused.code, 6);
    assert.match(refused.stderr, /2 problems/);
    assert.match(refused.stderr, /Did you mean "hyperparams.epochs"/);
    assert.match(refused.stderr, /priority has a min 3 above its max 2/);
    const scalar = await policies(['apply', '-f', '-'], { input: 'yes' });
    assert.deepEqual([scalar.code, /stdin holds a string/.test(scalar.stderr)], [6, true], scalar.stderr);
  });

  test('that nobody may set, or that say nothing, are told apart by the exit code', async () => {
    const token = await createToken(door.port, { projectId: project, scopes: ['READ'] });
    const reader = await policies(['set', 'priority', '--max', '1'], { token });
    assert.equal(reader.code, 4, reader.stderr);
    assert.equal((await policies(['set', 'priority'])).code, 2);
    assert.equal((await policies(['set', 'priority', '--max', 'x'])).code, 2);
    assert.equal((await policies(['list', '-p', 'p-none'])).code, 3);
    assert.equal((await policies(['test'])).code, 2);
  });
});

test('submit says every violation with its place, and exits with 6', async () => {
  const { code, stderr } = await run(['submit', '-f', 'job.yaml', '-p', project]);
  assert.equal(code, 6, stderr);
  assert.match(stderr, /hyperparams.epochs: epochs 50 is above the project's maximum 20/);
  assert.match(stderr, /model "bert-base" is not among the values that the project allows: "a"/);
});

test('a dry run names the jobs that rules would refuse, and a rule that warns lets them pass', async () => {
  await run(['policies', 'apply', '-f', '-'], { input: '[]' });
  const warned = ['policies', 'set', 'hyperparams.epochs', '--max', '20', '--warn'];
  assert.match((await run([...warned, '--dry-run'])).stderr, /would refuse 0 of the last 100 jobs/);
  const set = await run(warned);
  assert.equal(set.code, 0, set.stderr);
  assert.match((await run(['policies'])).stdout, /^hyperparams\.epochs\t\t\t20\t\t\twarn\t$/m);
  const passed = await run(['submit', '-f', 'job.yaml', '-p', project]);
  assert.equal(passed.code, 0, passed.stderr);
  assert.match(passed.stderr, /warning: epochs 50 is above the project's maximum 20/);
  const tested = await run(['policies', 'test', '-f', 'job.yaml']);
  assert.equal(tested.code, 0);
  assert.match(tested.stderr, /warning: epochs 50 is above/);
  const dry = await run(['submit', '-f', 'job.yaml', '-p', project, '--dry-run']);
  assert.match(dry.stderr, /warning: epochs 50 is above the project's maximum 20/);

  const before = await rulesNow();
  const denied = await run(['policies', 'set', 'hyperparams.epochs', '--deny', '--dry-run']);
  assert.equal(denied.code, 0, denied.stderr);
  assert.match(denied.stdout, /^p-policies\/\d+\t[a-z-]+\t[A-Z]+\t\S+\n$/);
  assert.match(denied.stderr, /Nothing was changed\. These rules would refuse 1 of the last 100 jobs/);
  const rules = '[{ "path": "model", "allowed": ["a"] }]';
  const json = await run(['policies', 'apply', '-f', '-', '--dry-run', '--json=state'], { input: rules });
  assert.equal((JSON.parse(json.stdout) as object[]).length, 1);
  assert.deepEqual(await rulesNow(), before);
});
