// The stock clients of examples/clients, installed from the registry as their lock says, each against a real gateway: a
// job is submitted and its log followed to the end, while the connection is cut in the middle. And the tools that make
// types of schema.graphql.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { promisify } from 'node:util';
import { skipUnless } from '../support/absent.ts';
import { spawnNode } from '../support/child.ts';
import { Proxy } from '../support/proxy.ts';
import { createProject, script, type Stack, startStack } from '../support/stack.ts';

const root = resolve(import.meta.dirname, '../..');
const count = 60;
const talker = script(`
  for (let n = 1; n <= ${count}; n++) {
    console.log('line ' + n);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
`);

suite('the stock clients', skipUnless('npm registry'), () => {
  let folder: string;
  let clients: string;
  let stack: Stack;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'clients-'));
    clients = join(folder, 'examples', 'clients');
    const isOurs = (path: string) => !path.includes('node_modules');
    cpSync(join(root, 'examples', 'clients'), clients, { recursive: true, filter: isOurs });
    copyFileSync(join(root, 'schema.graphql'), join(folder, 'schema.graphql'));
    const installed = run('npm', ['ci', '--no-audit', '--no-fund', '--ignore-scripts']);
    [stack] = await Promise.all([startStack({ gpus: 1 }), installed]);
    await createProject(stack.client, 'p-clients', talker);
  });
  after(async () => {
    await stack.stop();
    rmSync(folder, { recursive: true, force: true });
    await expectNoLeaks();
  });

  /** In the clients' folder, with the node of the tests; its output. */
  async function run(program: string, args: string[]): Promise<string> {
    const PATH = [dirname(process.execPath), process.env['PATH']].join(delimiter);
    const env = { ...process.env, PATH, NODE_TEST_CONTEXT: undefined };
    const { stdout, stderr } = await promisify(execFile)(program, args, { cwd: clients, env, timeout: 120_000 });
    return stdout + stderr;
  }

  for (const name of ['graphql-ws', 'apollo', 'urql']) {
    test(`${name} submits a job and follows it to its end, whole, though it is cut on the way`, async () => {
      await using proxy = await Proxy.open(Number(new URL(stack.url).port));
      const env = { ASTRAML_URL: `http://127.0.0.1:${proxy.port}`, ASTRAML_TOKEN: stack.token };
      const child = spawnNode([`${name}.js`, 'p-clients'], { cwd: clients, env });
      await child.untilLine(/ line 10$/, { timeoutMs: 20_000 });
      proxy.cut();
      await child.untilLine(/ line 30$/, { timeoutMs: 20_000 });
      proxy.cut();
      const { code } = await child.untilEnd();
      const printed = child.output().split('\n');
      assert.equal(code, 0, child.output());
      const lines = printed.filter((line) => /^\d+ /.test(line));
      assert.deepEqual(
        lines.map((line) => Number(line.split(' ')[0])),
        lines.map((_, index) => index + 1),
      );
      assert.deepEqual(
        lines.filter((line) => / line \d+$/.test(line)).map((line) => line.replace(/^\d+ /, '')),
        Array.from({ length: count }, (_, index) => `line ${index + 1}`),
      );
      if (name !== 'graphql-ws') assert.match(printed.filter(Boolean).at(-1) ?? '', /^(RUNNING|SUCCEEDED)$/);
    });
  }

  test('graphql-codegen and gql.tada make types that fit the schema', async () => {
    await run('npx', ['graphql-codegen']);
    await run('npx', ['gql-tada', 'generate-output']);
    await run('npx', ['tsc', '-p', '.']);
  });

  test('Relay compiles against the schema: ids, refetching, connections, subscriptions', async () => {
    assert.match(await run('npx', ['relay-compiler']), /compiled documents/);
    assert.ok(existsSync(join(clients, 'relay', '__generated__', 'JobListPaginationQuery.graphql.js')));
  });
});
