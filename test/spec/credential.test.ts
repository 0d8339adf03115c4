// What looks like a credential is refused wherever a job's spec, a policy or a project may hold it, is named without being
// repeated, and is stored nowhere; what only resembles one passes.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { after, suite, test } from 'node:test';
import { Refusal } from '../../src/errors.ts';
import { newId } from '../../src/id.ts';
import { retryJob } from '../../src/submission/retry.ts';
import { keyOf, submit as submitJob } from '../../src/submission/submit.ts';
import { planJob } from '../../src/submission/plan.ts';
import { commit } from '../../src/live/commit.ts';
import { cancelJob } from '../../src/attempt/cancel.ts';
import { setPolicy } from '../../src/policy/policy.ts';
import { createProject } from '../../src/project/project.ts';
import { ensureToken, newTokenText } from '../../src/project/token.ts';
import { createSchedule } from '../../src/schedule/edit.ts';
import { findCredentials } from '../../src/spec/credential.ts';
import { fromInput, toInput } from '../../src/spec/input.ts';
import { parseSpec } from '../../src/spec/spec.ts';
import { openStore, testProject } from '../support/store.ts';

const base = { project_id: testProject, model: 'm', dataset: 'd' };
const store = await openStore();
after(async () => {
  await store.close();
  await expectNoLeaks();
});

// Put together here, so that no scanner takes this file for a leak.
const join = (...parts: string[]) => parts.join('');
const alnum = 'Zx81Kq0vTn5LwB2yRf7uJc9eHd3gMs6aPiQo4tXk';
const credentials: Record<string, string> = {
  'an AWS access key id': join('AKIA', 'IOSFODNN7EXAMPLE'),
  'an AWS secret access key': join('aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/', 'bPxRfiCYEXAMPLEKEY'),
  'a GitHub token': join('ghp_', alnum.slice(0, 36)),
  'a GitHub token, fine-grained': join('github_pat_', alnum, alnum),
  'a GitLab token': join('glpat-', alnum.slice(0, 20)),
  'a Hugging Face token': join('hf_', alnum.slice(0, 34)),
  'an OpenAI key': join('sk-proj-', alnum),
  'an OpenAI key, old': join('sk-', alnum),
  'an Anthropic key': join('sk-ant-', 'api03-', alnum),
  'a Slack token': join('xoxb-', '123456789012-', alnum.slice(0, 24)),
  'a Google API key': join('AIza', alnum.slice(0, 35)),
  'a private key': '-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----',
  'a JSON Web Token': join(
    'eyJhbGciOiJIUzI1NiJ9.',
    'eyJzdWIiOiIxMjM0NTY3ODkwIn0.',
    'dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U',
  ),
  'a URL with a password': 'postgres://app:hunter2@db.example/train',
  'a URL with a password, without a user': 'redis://:hunter2@cache:6379',
  'a signed URL': `https://b.example/d.tar?X-Amz-Signature=${'0123456789abcdef'.repeat(4)}`,
  'a token of this platform': newTokenText(),
  'a URL with a password, with a slash': 'postgres://app:hunt/er2@db.example/train',
  'a URL with a password, with a dollar sign': 'postgres://app:$ecret!23@db.example/train',
  'a URL with a token': `https://${alnum.slice(0, 24)}@git.example/x.git`,
  'a SendGrid key': join('SG.', alnum.slice(0, 22), '.', alnum, 'abc'),
  'a Databricks token': join('dapi', '0123456789abcdef'.repeat(2)),
  'a Discord token': join('MT', alnum.slice(0, 24), '.', alnum.slice(0, 6), '.', alnum.slice(0, 30)),
  'a Discord token, of a webhook': join('https://discord.com/api/', 'webhooks/123456789012345678/', alnum, alnum),
  'a Telegram token': join('123456789:', 'AA', alnum.slice(0, 33)),
  'an OpenRouter key': join('sk-or-', 'v1-', '0123456789abcdef'.repeat(4)),
  'a private key, in base64': Buffer.from('-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA').toString('base64'),
  'a private key, in base64 of more': Buffer.from('#\n-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKC').toString('base64'),
  'a password in a command': `curl -u user:pw https://api.example`,
  'a password in a command, of mysql': 'mysql -uroot -pPW train -e 1',
  'a bearer token': `curl -H 'Authorization: Bearer ${alnum}'`,
};

const openVariables: [name: string, value: string][] = [
  ['WANDB_API_KEY', '0123456789abcdef0123456789abcdef01234567'],
  ['DB_PASSWORD', 'Winter2024!'],
  ['DB_PASSWORD', 'correcthorsebatterystaple'],
  ['PGPASSWORD', 'tr0ub4dor&3'],
  ['CLIENT_SECRET', 'b3f1c9d27a6e4850'],
  ['API_KEY', '550e8400-e29b-41d4-a716-446655440000'],
  ['MY_TOKEN', alnum.slice(0, 24)],
  ['ENCRYPTION_KEY', 'q1w2e3r4t5y6'],
  ['GITHUB_PAT', 'k3yk3y-9xQ2'],
  ['SMTP_PASS', 'Winter2024!'],
  ['DB_PWD', 'tr0ub4dor&3'],
  ['dbPass', 'tr0ub4dor&3'],
  ['DB_PASSWORD', '/9xK!m2Qz'],
  ['DB_PASSWORD', '.hidden9xQ2'],
  ['DB_PASSWORD', '$ecret!23'],
  ['DB_PASSWORD', '~Tilde9xQ2'],
  ['ASTRAML_BOOTSTRAP_TOKEN', 'at-least-as-long-as-a-token-must-be'],
  ['AWS_SECRET_ACCESS_KEY', join('wJalrXUtnFEMI/K7MDENG/', 'bPxRfiCYEXAMPLEKEY')],
];

/** Each is a spec's part that holds nothing secret. */
const harmless: Record<string, Record<string, unknown>> = {
  URIs: { dataset: 's3://bucket/dataset', notes: 'see https://user@example.com/x:80/y and gs://b/2026-11-23T17:34@v2' },
  'names of models': {
    model: 'meta-llama/Llama-3-8B',
    name: 'Qwen2.5-7B-Instruct-GPTQ-Int4',
    tags: ['sk-learn', 'hf_hub', 'ghp_'],
  },
  'a git hash': {
    notes: '3f786850e387550fdab836ed7e6dc881de23001b',
    hyperparams: { git_sha: '3f786850e387550fdab836ed7e6dc881de23001b' },
  },
  'a digest': {
    hyperparams: {
      image: `ghcr.io/acme/train@sha256:${'0123456789abcdef'.repeat(4)}`,
      checksum: '0123456789abcdef'.repeat(4),
    },
  },
  'code that gets it elsewhere': {
    command: [
      'python',
      '-c',
      "password = read_password(path); secret=json.load(open(p))['secret']; token = a?.b?.token1X",
    ],
  },
  'UUIDs and ids of ours': {
    notes: newId('job'),
    hyperparams: { run_key: '550e8400-e29b-41d4-a716-446655440000', resume_token: newId('att') },
  },
  'W&B run ids and dates': {
    notes: 'acme/proj/1x9k2j3q, 20261123T173442Z',
    hyperparams: { wandb_run: '1x9k2j3q', date_key: '20261123T173442Z' },
  },
  'long numbers': { hyperparams: { seed_key: '123456789012345678901234567890', n: 123456789012345 } },
  'names that hold the word': {
    hyperparams: {
      tokenizer: 'bert-base-uncased',
      tokenizer_key: 'bert',
      KEYBOARD: 'a1B2c3D4e5F6g7H8i9',
      max_tokens: '1a2B3c4D5e6F7g8H9',
      secret_santa: 'x1Y2z3A4b5C6d7E8',
    },
  },
  'tokens of text': { hyperparams: { eos_token: '<|end_of_text|>', pad_token: 'a1B2c3D4e5F6g7H8i9', token: '[MASK]' } },
  'keys of data': {
    hyperparams: {
      image_key: 'observation.images.top_camera_rgb_640x480',
      sort_key: 'createdAt2Desc',
      cache_key: '3f786850e387550fdab836ed7e6dc881de23001b',
      primary_key: 'id',
    },
  },
  'words as a value': { hyperparams: { auth_secret: 'my-hf-secret', password: 'required', api_key: 'prod-key-v2' } },
  commands: {
    command: [
      'python',
      'train.py',
      '--tokenizer=bert-base',
      '--key',
      'value',
      '--lr=3e-5',
      '--token-count=4096',
      '/data/Ab1Cd2Ef3Gh4/x',
      'dGVzdA==',
    ],
  },
  'what a shell fills in': {
    command: [
      'sh',
      '-c',
      'curl https://u:${GITHUB_TOKEN}@github.com/x; TOKEN=$HF_TOKEN; export API_KEY="$(cat /run/k)"',
    ],
  },
  references: {
    env: [
      { name: 'DB_PASSWORD_FILE', from: { value: '/run/secrets/Db1Pass2' } },
      { name: 'TOKENIZER_KEY', from: { value: 'bert' } },
      { name: 'X_SECRET', from: { value: 'arn:aws:secretsmanager:eu-1:1:secret:Ab1Cd2' } },
    ],
  },
  'names of secrets': { env: [{ name: 'OPENAI_API_KEY', from: { secret: 'OPENAI_KEY_PROD1a' } }] },
  placeholders: { notes: `hf_${'x'.repeat(34)} and https://user:****@host and password: ********` },
  'counts of tokens': { hyperparams: { max_new_token: 'abc123def456ghi7', num_token: 'abc123def456ghi7' } },
  'passes, folders and paths': {
    hyperparams: { forward_pass: 'bf16-mixed2x', second_pass: 'a1b2c3d4e5', pass: 'a1b2c3d4e5', pat: 'x1y2z3a4b5' },
    env: [
      { name: 'PWD', from: { value: '/home/u1/x9Y8z7' } },
      { name: 'APP_CREDENTIALS', from: { value: '/secrets/gcp-sa1.json' } },
      { name: 'OLD_PWD', from: { value: '~/x9Y8z7' } },
      { name: 'DB_PASSWORD', from: { value: '$DB_PASS1' } },
    ],
  },
  'flags of commands': {
    command: [
      'sh',
      '-c',
      'docker run -u 1000:1000 -p8080:80 x; curl -u "$USER:$PASS" http://h; mysql -p"$PW" -p; cut -d: -f1',
    ],
    notes: 'mkdir -p data1 && python -u train.py --token-count 40960 --tokenizer bert-base2',
  },
  'a port and a path': { dataset: 'https://registry.example:8080/x/y@v2', notes: 'dvc://repo:main/data@v1' },
  'certificates in base64': { notes: Buffer.from('-----BEGIN CERTIFICATE-----\nMIIEpAIBAAKCAQEA').toString('base64') },
  'parameters of a URL': { dataset: 'https://example.com/d?key=train&token=first&page=2' },
};

const open = (part: Record<string, unknown>) =>
  parseSpec({ ...base, ...part }).issues.filter(({ code }) => code === 'SECRET_LITERAL');
const variable = (name: string, value: string, more = {}) => ({ env: [{ name, from: { value }, ...more }] });

suite('a credential is refused', () => {
  for (const [name, value] of Object.entries(credentials)) {
    test(`${name}, anywhere`, () => {
      const places: [Record<string, unknown>, string][] = [
        [{ notes: `use ${value} please` }, 'notes'],
        [{ dataset: value }, 'dataset'],
        [{ tags: ['a', value] }, 'tags.1'],
        [{ hyperparams: { deep: { list: [1, value] } } }, 'hyperparams.deep.list.1'],
        [{ augmentation: [{ op: 'crop', params: { from: value } }] }, 'augmentation.0.params.from'],
        [{ command: ['sh', '-c', `X="${value}" run`] }, 'command.2'],
        [variable('PLAIN', value), 'env.0.from.value'],
        [{ unknown_field: value }, 'unknown_field'],
      ];
      for (const [part, place] of places) {
        const issues = open(part);
        assert.deepEqual(
          issues.map(({ specPath }) => specPath),
          [place],
        );
        const text = JSON.stringify(parseSpec({ ...base, ...part }));
        assert.ok(!text.includes(JSON.stringify(value).slice(1, -1)), text);
        assert.ok(issues[0]?.message.includes(name.split(',')[0] ?? ''), text);
      }
    });
  }

  test('under a name of secrets, in each way to give one', () => {
    for (const [name, value] of openVariables) {
      const places: Record<string, unknown>[] = [
        variable(name, value),
        { hyperparams: { [name]: value } },
        { hyperparams: { [name.toLowerCase()]: value } },
        { augmentation: [{ op: 'crop', params: { [name]: value } }] },
        { command: ['run', `--${name.toLowerCase().replaceAll('_', '-')}=${value}`] },
        { command: ['run', `--${name.toLowerCase().replaceAll('_', '-')}`, value] },
        { command: ['sh', '-c', `${name}=${value} run`] },
        { notes: `${name}: "${value}"` },
      ];
      for (const part of places) {
        const issues = open(part);
        assert.equal(issues.length, 1, `${name} ${JSON.stringify(part)}`);
        assert.ok(!JSON.stringify(issues).includes(value));
      }
    }
  });

  test('that is a password with blanks, in quotes or alone', () => {
    for (const value of ['correct horse battery staple', 'Winter is 4 coming', 'pass, word; x1']) {
      const places: Record<string, unknown>[] = [
        variable('DB_PASSWORD', value),
        { hyperparams: { db_pass: value } },
        { command: ['sh', '-c', `PASSWORD='${value}' run`] },
        { command: ['sh', '-c', `run --password="${value}"`] },
        { notes: `password: "${value}"` },
      ];
      for (const part of places) assert.equal(open(part).length, 1, JSON.stringify(part));
    }
    assert.deepEqual(open({ hyperparams: { password: 'ask the administrator' } }), []);
  });

  test('that follows a flag of its program, as a word or within a text', () => {
    const commands: [command: string[], place: number][] = [
      [['curl', '-s', '-u', 'bob:hunter2', 'https://x.example'], 3],
      [['sudo', '/usr/bin/curl', '--user=bob:hunter2'], 2],
      [['curl', '--proxy-user', 'bob:hunter2'], 2],
      [['mysqldump', '-u', 'root', '-phunter2', 'train'], 3],
      [['sshpass', '-p', 'hunter2', 'ssh', 'x'], 2],
      [['redis-cli', '-a', 'hunter2', 'ping'], 2],
      [['docker', 'login', '-u', 'bob', '-p', 'hunter2'], 5],
      [['run', '--password', 'Winter2024!'], 2],
    ];
    for (const [command, place] of commands) {
      const paths = (part: Record<string, unknown>) => open(part).map(({ specPath }) => specPath);
      assert.deepEqual(paths({ command }), [`command.${place}`], command.join(' '));
      assert.deepEqual(paths({ command: ['sh', '-c', `cd x && ${command.join(' ')}`] }), ['command.2']);
    }
  });

  test('that is a bootstrap token, whatever its form, once the gateway knows it', async () => {
    const token = ['just', 'some', 'words', 'that', 'nobody', 'guesses'].join(' ');
    assert.deepEqual(open({ notes: `use ${token}!` }), []);
    await commit(store, (tx) => ensureToken(tx, token, { name: 'bootstrap', scopes: ['ADMIN'], projectId: null }));
    assert.equal(open({ notes: `use ${token}!` })[0]?.message.includes('a token of this platform'), true);
  });

  test('also behind a placeholder of the same kind', () => {
    const notes = `hf_${'x'.repeat(34)} or ${credentials['a Hugging Face token']}`;
    assert.equal(open({ notes }).length, 1);
  });

  test('also as a key, which is not repeated', () => {
    const value = credentials['a Hugging Face token'] ?? '';
    for (const part of [{ hyperparams: { [value]: 1 } }, { [value]: 1 }, variable(value, 'x')]) {
      const parsed = parseSpec({ ...base, ...part });
      assert.equal(parsed.spec, null);
      assert.ok(!JSON.stringify(parsed).includes(value), JSON.stringify(parsed));
      assert.deepEqual(
        parsed.issues.map(({ code }) => code),
        ['SECRET_LITERAL'],
      );
    }
  });

  test('with what to do instead', () => {
    const [issue] = open(variable('HF_TOKEN', credentials['a Hugging Face token'] ?? ''));
    assert.equal(issue?.message, 'env.0.from.value looks like a Hugging Face token: it must not stand in the open.');
    assert.equal(
      issue?.hint,
      'Keep it with "astraml secrets set HF_TOKEN", and name it: env: [{name: HF_TOKEN, from: {secret: HF_TOKEN}}]. If it is no credential, add not_secret: true (notSecret in GraphQL) to this variable.',
    );
    const [noted] = open({ notes: credentials['an OpenAI key'] });
    assert.match(noted?.hint ?? '', /from: \{secret: OPENAI_API_KEY\}/);
  });

  test('together with every other problem', () => {
    const { issues } = parseSpec({ ...base, epochs: 1, notes: credentials['a GitHub token'] });
    assert.deepEqual(
      issues.map(({ code }) => code),
      ['SECRET_LITERAL', 'UNKNOWN_FIELD'],
    );
  });
});

suite('no credential is', () => {
  for (const [name, part] of Object.entries(harmless)) {
    test(name, () => assert.deepEqual(open(part), []));
  }

  test('what its submitter says is none', () => {
    const part = variable('API_KEY', '550e8400-e29b-41d4-a716-446655440000', { not_secret: true });
    assert.deepEqual(open(part), []);
    assert.equal(open(variable('API_KEY', '550e8400-e29b-41d4-a716-446655440000', { not_secret: false })).length, 1);
  });
});

test('notSecret of GraphQL is not_secret of the file, both ways', () => {
  const env = [{ name: 'A', from: { value: 'x' }, notSecret: true }];
  assert.deepEqual(fromInput({ env }), { env: [{ name: 'A', from: { value: 'x' }, not_secret: true }] });
  assert.deepEqual(toInput(fromInput({ env })), { env });
});

async function refused(work: Promise<unknown>): Promise<Refusal> {
  const error: unknown = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof Refusal, String(error));
  return error;
}

const canary = credentials['a GitHub token'] ?? '';
const specPath = ['input', 'spec'];
function submit(more: Record<string, unknown>, key: string | null = null) {
  const spec = { ...base, ...more };
  return submitJob(store, store.admin, { spec, at: specPath }, keyOf('submitJob', key, spec));
}

/** Every row of every table, as text. */
async function everything(): Promise<string> {
  const { rows: tables } = {
    rows: await store.database.db.execute<{ name: string }>(
      "select quote_ident(tablename) as name from pg_tables where schemaname = 'public'",
    ),
  };
  const dumps = await Promise.all(
    [...tables].map(({ name }) => store.database.db.execute<{ row: string }>(`select t::text as row from ${name} t`)),
  );
  return dumps.flatMap((rows) => [...rows].map(({ row }) => row)).join('\n');
}

test('a submission with a credential is refused at submit and preview, and leaves no trace', async () => {
  const spec = variable('HF', canary);
  const error = await refused(submit(spec, 'key'));
  assert.equal(error.code, 'INVALID_INPUT');
  assert.deepEqual(
    error.details.issues?.map(({ code, path }) => [code, path.join('.')]),
    [['SECRET_LITERAL', 'input.spec.env.0.from.value']],
  );
  const plan = await planJob(store.database.db, store.admin, { spec: { ...base, ...spec }, at: specPath });
  assert.ok(!plan.ready && plan.refusal.details.issues?.[0]?.code === 'SECRET_LITERAL');
  assert.ok(!JSON.stringify([error, error.message, plan]).includes(canary));
  assert.ok(!(await everything()).includes(canary));
  // The key is free: the corrected submission takes it.
  const { replayed } = await submit(base, 'key');
  assert.equal(replayed, false);
});

test('a variable that is said to be no secret is recorded by its name in the job’s first event', async () => {
  const spec = variable('CACHE_API_KEY', '550e8400-e29b-41d4-a716-446655440000', { not_secret: true });
  const { job } = await submit(spec);
  assert.deepEqual(job.effective['env'], [
    { name: 'CACHE_API_KEY', from: { value: '550e8400-e29b-41d4-a716-446655440000' } },
  ]);
  const [event] = await store.database.db.execute<{ message: string; data: unknown }>(
    `select message, data from event where job_id = '${job.id}'`,
  );
  assert.match(event?.message ?? '', /Said to be no credential: CACHE_API_KEY\.$/);
  assert.deepEqual(event?.data, { notSecret: ['CACHE_API_KEY'] });
});

test('a policy holds no credential: not in a default, an allowed value, a message or a path', async () => {
  const rules = [
    { path: 'hyperparams.api_token', default: canary },
    { path: 'hyperparams.password', allowed: ['Winter2024!'] },
    { path: 'model', required: true, message: `Ask for ${canary}.` },
    { path: `hyperparams.${canary}`, required: true },
    { path: 'hyperparams.tokenizer', default: 'bert' },
  ];
  const error = await refused(
    commit(store, (tx) => setPolicy(tx, store.admin, { projectId: testProject, rules, ifRevision: null })),
  );
  assert.deepEqual(
    error.details.issues?.map(({ code, path }) => [code, path.join('.')]),
    [
      ['SECRET_LITERAL', 'input.rules.0.default'],
      ['SECRET_LITERAL', 'input.rules.1.allowed.0'],
      ['SECRET_LITERAL', 'input.rules.2.message'],
      ['SECRET_LITERAL', 'input.rules.3.path'],
    ],
  );
  assert.ok(!JSON.stringify([error, error.message]).includes(canary));
});

test('a retry and a schedule are refused likewise', async () => {
  const { job: first } = await submit(base);
  const { id } = first;
  await commit(store, (tx) => cancelJob(tx, store.admin, { id, reason: null, gracePeriodSeconds: null }));
  const changes = { hyperparams: { hub: canary } };
  const retry = { id, changes, issues: [], idempotencyKey: 'key-2' };
  const retried = await refused(retryJob(store, store.admin, retry));
  const wanted = {
    ...{ cron: '0 * * * *', timezone: 'UTC', onOverlap: 'ALLOW' as const, startingDeadlineSeconds: 3600 },
    ...{ name: canary, spec: { ...base, notes: canary }, issues: [], idempotencyKey: 'key-3' },
  };
  const scheduled = await refused(commit(store, (tx) => createSchedule(tx, store.admin, wanted)));
  const issues = [retried, scheduled].flatMap(({ details }) => details.issues ?? []);
  assert.deepEqual(
    issues.map(({ code, path }) => [code, path.join('.')]),
    [
      ['SECRET_LITERAL', 'input.hyperparams.extra.hub'],
      ['SECRET_LITERAL', 'input.spec.notes'],
      ['SECRET_LITERAL', 'input.name'],
    ],
  );
  assert.ok(!JSON.stringify([issues, retried.message, scheduled.message]).includes(canary));
  assert.ok(!(await everything()).includes(canary));
});

test('a project’s command and name hold no credential', async () => {
  const input = { id: 'p-open', name: `Ours ${canary}`, command: ['run', '--token', canary] };
  const error = await refused(commit(store, (tx) => createProject(tx, store.admin, input)));
  assert.deepEqual(
    error.details.issues?.map(({ path }) => path.join('.')),
    ['input.name', 'input.command.2'],
  );
  assert.ok(!JSON.stringify([error, error.message]).includes(canary));
});

test('a megabyte of text is looked through at once', () => {
  const startedAt = performance.now();
  for (const text of [
    'a=b&'.repeat(250_000),
    'secret_key '.repeat(90_000),
    'https://a:'.repeat(100_000),
    'aws-aws-'.repeat(125_000),
    'x'.repeat(1_000_000),
  ]) {
    findCredentials(text, ['notes']);
  }
  const took = performance.now() - startedAt;
  assert.ok(took < 3_000, `${took} ms`);
});
