// A secret's way from the person who sets it to the command that uses it, and everywhere it must not pass: answers,
// logs, the bus, the disk of database and runner. What is looked for is a canary.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { type Child, spawnNode } from '../support/child.ts';
import {
  adminToken,
  createProject as createProjectAt,
  dataOf,
  type Operation,
  transportNames,
  transports,
} from '../support/door.ts';
import { newSecretKeys } from '../support/secret-keys.ts';
import { createProject, followLog, jobState, script, type Stack, startStack, submit } from '../support/stack.ts';
import { until } from '../support/until.ts';

const canary = 'canary-Zq7pL2vX9wT4';
const project = 'p-canary';

after(() => expectNoLeaks());

/** Files under the folder whose bytes hold the text. */
function holding(folder: string, text: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => readFileSync(file).includes(text));
}

suite('a job with a secret, in one process', () => {
  let stack: Stack;
  const dataDir = mkdtempSync(join(tmpdir(), 'secret-run-'));
  after(async () => {
    await stack.stop();
    rmSync(dataDir, { recursive: true, force: true });
  });

  const setSecret = async () => {
    const query = `mutation ($input: SetSecretInput!) {
      setSecret(input: $input) { ... on SecretPayload { secret { version } warnings { code path } } ... on UserError { message } } }`;
    const set = (value: string, name = 'CANARY') =>
      stack.client.request(query, { input: { projectId: project, name, value } });
    assert.deepEqual(await set(canary), { setSecret: { secret: { version: 1 }, warnings: [] } });
    const warnings = [{ code: 'SECRET_TOO_SHORT', path: ['input', 'value'] }];
    assert.deepEqual(await set('12345', 'PIN'), { setSecret: { secret: { version: 1 }, warnings } });
  };
  const env = [{ name: 'MY_SECRET', from: { secret: 'CANARY' } }];

  test('gives the value to the command, and leaves it on no disk and no bus', async () => {
    stack = await startStack({ dataDir });
    const sent: string[] = [];
    const { bus } = stack.gateway.store;
    const { publish, append } = bus;
    bus.publish = (channel, message) => {
      sent.push(message.toString());
      return publish.call(bus, channel, message);
    };
    bus.append = (stream, batch) => {
      sent.push(batch);
      return append.call(bus, stream, batch);
    };
    await createProject(stack.client, project);
    await setSecret();
    // It runs until it is told that its disk was looked at.
    const looked = join(dataDir, 'looked');
    const command = script(`
      import { createHash } from 'node:crypto';
      import { existsSync } from 'node:fs';
      console.log(createHash('sha256').update(process.env.MY_SECRET).digest('base64'));
      console.log('plain ' + process.env.MY_SECRET);
      while (!existsSync(${JSON.stringify(looked)})) await new Promise((done) => setTimeout(done, 20));
    `);
    const job = await submit(stack.client, project, { command, env });
    const following = followLog(stack.client, job.id);
    await until(async () => (await jobState(stack.client, job.id)).state === 'RUNNING', { what: 'the job runs' });
    await until(() => sent.some((batch) => batch.includes('plain ')), { what: 'its lines are sent' });
    assert.ok(holding(join(dataDir, 'runner'), 'MY_SECRET').some((file) => file.endsWith('/config.json')));
    assert.deepEqual(holding(dataDir, canary), []);
    writeFileSync(looked, '');
    const lines = (await following).filter(({ stream }) => stream === 'STDOUT').map(({ text }) => text);
    const hash = createHash('sha256').update(canary).digest('base64');
    assert.deepEqual(lines, [hash, 'plain [REDACTED]']);
    assert.equal((await jobState(stack.client, job.id)).state, 'SUCCEEDED');
    assert.deepEqual(holding(dataDir, canary), []);
    assert.deepEqual(sent.filter((message) => message.includes(canary)), []); // prettier-ignore
    assert.ok(sent.length > 3);
  });

  test('works after a restart: the key stays in the data folder, for its owner alone', async () => {
    const file = join(dataDir, 'secret-keys');
    const before = readFileSync(file, 'utf8');
    assert.match(before, /^local-[0-9a-f]{8}:[A-Za-z0-9+/]{43}=\n$/);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    await stack.stop();
    stack = await startStack({ dataDir });
    assert.equal(readFileSync(file, 'utf8'), before);
    const command = script('console.log(process.env.MY_SECRET.length)');
    const job = await submit(stack.client, project, { command, env });
    const lines = await followLog(stack.client, job.id);
    assert.ok(lines.some(({ text }) => text === String(canary.length)));
  });

  test('whose key was lost fails, naming it; a folder with a broken key is not used', async () => {
    await stack.stop();
    const file = join(dataDir, 'secret-keys');
    const lost = /^(local-\w+):/.exec(readFileSync(file, 'utf8'))?.[1] ?? assert.fail();
    writeFileSync(file, 'nothing');
    await assert.rejects(startStack({ dataDir }), /secret-keys does not hold the keys of the secrets/);
    rmSync(file);
    stack = await startStack({ dataDir });
    const job = await submit(stack.client, project, { command: ['true'], env });
    await until(async () => (await jobState(stack.client, job.id)).state === 'FAILED', { what: 'the job fails' });
    const { stateReason } = await jobState(stack.client, job.id);
    assert.equal(stateReason?.code, 'COMMAND_NOT_STARTED');
    assert.match(stateReason?.message ?? '', new RegExp(`Secret CANARY is encrypted with key ${lost}, which`));
  });
});

suite('a gateway that logs everything', () => {
  const folder = mkdtempSync(join(tmpdir(), 'secret-log-'));
  let gateway: Child;
  let port: number;
  before(async () => {
    gateway = spawnNode([new URL('../support/fixtures/gateway.ts', import.meta.url).pathname], {
      env: {
        ASTRAML_DATA_DIR: folder,
        PORT: '0',
        ASTRAML_BOOTSTRAP_TOKEN: adminToken,
        ASTRAML_SECRET_KEYS: newSecretKeys('k1'),
        LOG_LEVEL: 'trace',
      },
    });
    const [, url = ''] = await gateway.untilLine(/^listening (\S+)$/, { timeoutMs: 30_000 });
    port = Number(new URL(url).port);
    await createProjectAt(port, project);
  });
  after(async () => {
    await gateway.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const fields = '{ __typename ... on UserError { code message hint path } }';
  const withInput = `mutation ($input: SetSecretInput!) { setSecret(input: $input) ${fields} }`;
  const inline = (input: string): Operation => ({ query: `mutation { setSecret(input: { ${input} }) ${fields} }` });
  const good = { projectId: project, name: 'CANARY', value: canary };

  test('and its answers never repeat a value, whatever is wrong beside it, over every transport', async () => {
    const inputs: unknown[] = [
      good,
      { ...good, name: 5 },
      { ...good, name: [canary] },
      { ...good, name: 'lower' },
      { ...good, name: undefined },
      { ...good, name: canary },
      { ...good, value: [canary] },
      { ...good, value: { canary } },
      { ...good, value: `${canary}\0` },
      { ...good, value: canary.repeat(3_450) }, // more than 64 KiB
      { ...good, projectId: null },
      { ...good, projectId: 'p-none' },
      { ...good, vlue: canary },
      canary,
      [canary],
    ];
    const operations: Operation[] = [
      ...inputs.map((input) => ({ query: withInput, variables: { input } })),
      inline(`projectId: 5.5, name: "X", value: "${canary}"`),
      inline(`projectId: "${project}", name: "X", value: """${canary}""", more: "${canary}"`),
      inline(`projectId: "${project}", name: "X", value: ["${canary}"]`),
      inline(`projectId: "${project}", name: "X", value: "${canary}`),
      inline(`projectId: "${project}", name: X, value: ${canary}`),
      {
        query: `mutation ($value: Int!) { setSecret(input: { value: $value }) ${fields} }`,
        variables: { value: canary },
      },
    ];
    for (const transport of transportNames) {
      for (const operation of operations) {
        const tooLong = transport !== 'POST' && JSON.stringify(operation).length > 10_000; // no URL or frame takes it
        if (tooLong) continue;
        const { text } = await transports[transport](port, operation);
        assert.equal(text.includes(canary), false, `${transport}: ${text}`);
      }
    }
    assert.equal(gateway.output().includes(canary), false, gateway.output());
  });

  test('nor does anything that can be asked of a secret that is set', async () => {
    const variables = { input: good };
    const set = await dataOf(port, { query: withInput, variables });
    assert.equal(set['setSecret']?.['__typename'], 'SecretPayload');
    const env = '[{ name: "A", from: { secret: "CANARY" } }]';
    const spec = `{ projectId: "${project}", model: "m", dataset: "d", env: ${env} }`;
    const job = '{ env { name value secretName } spec resolved { value } events { nodes { message } } }';
    const { result, text } = await transports.POST(port, {
      query: `mutation { submitJob(input: { spec: ${spec} }) { ... on SubmitJobPayload { job ${job} } } }`,
    });
    assert.deepEqual((result.data as unknown as { submitJob: { job: { env: unknown } } }).submitJob.job.env, [
      { name: 'A', value: null, secretName: 'CANARY' },
    ]);
    assert.equal(text.includes(canary), false);
    const read = await dataOf(port, {
      query: `{ project(id: "${project}") { secrets { id name version lastUsedAt } } }`,
    });
    const [secret] = read['project']?.['secrets'] as unknown as { id: string; name: string; version: number }[];
    assert.deepEqual([secret?.name, Number(secret?.version) > 1], ['CANARY', true]);
    const node = await dataOf(port, {
      query: `{ node(id: "${secret?.id}") { __typename id ... on Secret { name } } }`,
    });
    assert.deepEqual(node['node'], { __typename: 'Secret', id: secret?.id, name: 'CANARY' });
    const preview = await transports.POST(port, {
      query: `{ previewJob(spec: ${spec.replace('CANARY', 'CANARI')}) { errors { ... on ValidationError { issues { code path hint } } } } }`,
    });
    assert.deepEqual(preview.result.data, {
      previewJob: {
        errors: [
          {
            issues: [
              {
                code: 'UNKNOWN_SECRET',
                path: ['spec', 'env', '0', 'from', 'secret'],
                hint: 'Did you mean "CANARY"?',
              },
            ],
          },
        ],
      },
    });
    assert.equal(gateway.output().includes(canary), false);
    assert.deepEqual(holding(folder, canary), []);
  });
});
