// `astraml defaults`, `astraml migrate`, and what `submit --dry-run` shows of versions: processes of their own against a
// real gateway.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { commandLine } from '../support/cli.ts';
import { adminToken, createProject, createToken, dataOf, type Door, openDoor } from '../support/door.ts';

const project = 'p-defaults';
let door: Door;
const { run, write, remove } = commandLine(() => ({ ASTRAML_URL: door.url, ASTRAML_TOKEN: adminToken }));
before(async () => {
  door = await openDoor();
  await createProject(door.port, project);
});
after(async () => {
  await door.close();
  remove();
  await expectNoLeaks();
});

const job = `project_id: ${project}\nmodel: m\ndataset: d\nhyperparams: { batch_size: 16 }\n`;

suite('versions of the defaults', () => {
  test('are published from what show --yaml prints, changed; the same again is no second one', async () => {
    const yaml = (await run(['defaults', 'show', '--yaml'])).stdout;
    assert.match(yaml, /lr_scheduler: cosine/);
    const file = write('v22.yaml', yaml.replace('cosine', 'linear').replace('patience: 5', 'patience: 9'));
    const args = ['defaults', 'publish', '-f', file, '--defaults-version', 'v2.2'];
    const made = await run(args);
    assert.equal(made.code, 0, made.stderr);
    assert.match(made.stdout, /^v2\.2 published [0-9a-f]{64}\n$/);
    assert.match(made.stderr, /astraml defaults use v2\.2/);
    assert.equal((await run(args)).stdout, made.stdout);
    const broken = await run(['defaults', 'publish', '-f', '-', '--defaults-version', 'v2.3'], { input: 'logs: {}' });
    assert.equal(broken.code, 6);
    assert.match(broken.stderr, /hyperparams.batch_size is missing/);
    const other = await run([...args.slice(0, 3), '-', ...args.slice(4)], { input: yaml });
    assert.equal(other.code, 6);
    assert.match(other.stderr, /v2\.2 are published already, with other values/);
    const token = await createToken(door.port, { projectId: null, scopes: ['WRITE'] });
    assert.equal((await run(args, { env: { ASTRAML_TOKEN: token } })).code, 4);
  });

  test('are listed, shown and compared; an unknown one is refused with a hint', async () => {
    const listed = (await run(['defaults', 'list'])).stdout.trim().split('\n');
    assert.deepEqual(
      listed.map((line) => line.split('\t').slice(0, 2)),
      [
        ['v2.1', 'current'],
        ['v2.2', ''],
      ],
    );
    assert.match((await run(['defaults', 'show', 'v2.2'])).stdout, /lr_scheduler\tlinear\tDEFAULT/);
    assert.match((await run(['defaults'])).stdout, /lr_scheduler\tcosine\tDEFAULT/);
    const diff = await run(['defaults', 'diff', 'v2.1', 'v2.2']);
    assert.equal(
      diff.stdout,
      'hyperparams.early_stopping.patience\t5\t9\nhyperparams.lr_scheduler\tcosine\tlinear\n',
      diff.stderr,
    );
    for (const args of [
      ['show', 'v9'],
      ['diff', 'v2.1', 'v9'],
      ['use', 'v9'],
    ]) {
      const unknown = await run(['defaults', ...args]);
      assert.equal(unknown.code, 3, unknown.stderr);
      assert.match(unknown.stderr, /Published: v2\.1, v2\.2/);
    }
    assert.match((await run(['defaults', 'show', 'v2.l'])).stderr, /Did you mean "v2\.1"/);
  });

  test('show what moving a spec would change, also from one that nobody knows', async () => {
    const file = write('job.yaml', job);
    const known = await run(['migrate', '-f', file, '--from', 'v2.1', '--to', 'v2.2']);
    assert.equal(known.code, 0, known.stderr);
    assert.match(known.stdout, /^hyperparams\.lr_scheduler\tcosine\tlinear\tchanges$/m);
    assert.match(known.stdout, /^hyperparams\.batch_size\t16\t16\tpinned$/m);
    assert.match(known.stdout, /^hyperparams\.epochs\t5\t5\tsame$/m);
    assert.match(known.stderr, /2 of \d+ values change from v2\.1 to v2\.2/);
    const unknown = await run(['migrate', '-f', file, '--from', 'v1.4']);
    assert.match(unknown.stdout, /^hyperparams\.lr_scheduler\t\?\tcosine\tmay change$/m);
    assert.match(unknown.stdout, /^hyperparams\.early_stopping\.patience\t\?\t5\tmay change$/m);
    assert.match(unknown.stdout, /^hyperparams\.batch_size\t16\t16\tpinned$/m);
    assert.match(unknown.stderr, /v1\.4 is not published here/);
  });

  test('that become current between preview and submission do not slip into the job', async () => {
    const shown = await run(['submit', '-f', write('job.yaml', job), '--dry-run']);
    assert.equal(shown.code, 0, shown.stderr);
    const hash = /Spec hash ([0-9a-f]{64})/.exec(shown.stderr)?.[1] ?? '';
    const args = ['submit', '-f', 'job.yaml', '--expected-spec-hash', hash];
    assert.equal((await run(args)).code, 0);
    const used = await run(['defaults', 'use', 'v2.2']);
    assert.match(used.stdout, /^v2\.2 current /);
    const refused = await run(args);
    assert.equal(refused.code, 6, refused.stderr);
    assert.match(refused.stderr, new RegExp(`not to "${hash}"`));
  });
});

test('serverInfo names versions in order, and features that are there', async () => {
  const { serverInfo } = await dataOf(door.port, {
    query: '{ serverInfo { defaultsVersion defaultsVersions features } }',
  });
  const { features, ...versions } = serverInfo as unknown as { features: string[] };
  assert.deepEqual(versions, { defaultsVersion: 'v2.2', defaultsVersions: ['v2.1', 'v2.2'] });
  for (const feature of ['migration-preview', 'policy-warnings', 'rest', 'sse']) assert.ok(features.includes(feature));
  assert.deepEqual(features, [...features].sort());
});
