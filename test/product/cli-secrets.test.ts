// `astraml secrets` and `submit --secret` as people and scripts meet them: a process of its own against a real gateway.
import { expectNoLeaks } from '../support/leaks.ts';
import { sql } from 'drizzle-orm';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, suite, test } from 'node:test';
import { binary, commandLine } from '../support/cli.ts';
import { adminToken, createProject, createToken, dataOf, type Door, openDoor } from '../support/door.ts';
import { findProgram } from '../support/install.ts';

const project = 'p-secrets';
const canary = 'canary-Zq7pL2vX9wT4';

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

const secrets = (args: string[], input = '', env = {}) => run(['secrets', ...args], { input, env });

async function listed(): Promise<Record<string, unknown>[]> {
  return JSON.parse((await secrets(['list', '--json'])).stdout) as Record<string, unknown>[];
}

/** What a job that uses the secret is given: its length in bytes tells whether anything was added or dropped. */
async function sizeOf(name: string): Promise<number> {
  const { db } = door.gateway.store.database;
  const query = sql`select length(sealed_value) - 28 as size from secret where name = ${name}`;
  const [row] = await db.execute<{ size: number }>(query);
  return Number(row?.size);
}

suite('secrets', () => {
  test('of a new project are none', async () => {
    assert.deepEqual(await secrets([]), { code: 0, stdout: '', stderr: 'p-secrets has no secrets.\n' });
  });

  test('set reads stdin and drops one line end at its end; the value is printed nowhere', async () => {
    const sizes: [string, number][] = [
      [`${canary}\n`, canary.length],
      [`${canary}\r\n`, canary.length],
      [' é\nlonger\n\n', 11],
    ];
    for (const [index, [input, size]] of sizes.entries()) {
      const ran = await secrets(['set', 'HF_TOKEN'], input);
      assert.deepEqual(ran, { code: 0, stdout: `HF_TOKEN version ${index + 1}\n`, stderr: `server  ${door.url}\n` });
      assert.equal(await sizeOf('HF_TOKEN'), size, JSON.stringify(input));
    }
  });

  test('set warns of a value that is too short to be masked, and sets it', async () => {
    const warning =
      /^server {2}\S+\nwarning: PIN has no line of 6 characters or more, so it is not masked [^]*set a longer value\.\n$/;
    for (const input of ['12345\n', '1234\n 567 \n890\n']) {
      const { code, stdout, stderr } = await secrets(['set', 'PIN'], input);
      assert.deepEqual([code, stdout.startsWith('PIN version ')], [0, true]);
      assert.match(stderr, warning);
    }
    const long = await secrets(['set', 'PIN', '--json'], '123456\n');
    assert.equal(long.stderr, `server  ${door.url}\n`);
    assert.equal((await secrets(['delete', 'PIN'])).code, 0);
  });

  test('set --from-env takes a variable as it is', async () => {
    const ran = await secrets(['set', 'FROM_ENV', '--from-env', 'MINE'], 'not this', { MINE: `${canary}\n` });
    assert.deepEqual(ran, { code: 0, stdout: 'FROM_ENV version 1\n', stderr: `server  ${door.url}\n` });
    assert.equal(await sizeOf('FROM_ENV'), canary.length + 1);
    const unset = await secrets(['set', 'FROM_ENV', '--from-env', 'MINE']);
    assert.deepEqual([unset.code, unset.stderr], [2, 'error: The environment variable MINE is not set.\n']);
  });

  test('set takes no value on the command line', async () => {
    for (const args of [
      ['X', canary],
      ['X', '--value', canary],
    ]) {
      const { code, stdout } = await secrets(['set', ...args], 'v');
      assert.deepEqual([code, stdout], [2, '']);
    }
    const names = (await listed()).map(({ name }) => name);
    assert.deepEqual(names, ['FROM_ENV', 'HF_TOKEN']);
  });

  test('set says what is wrong with a name or a value, without the value', async () => {
    const wrong: [string, string, number, RegExp][] = [
      ['hf-token', canary, 6, /name takes upper-case letters[^]+For example HF_TOKEN\./],
      ['X', '\n', 2, /stdin is empty/],
      ['X', `${canary}\0`, 6, /value holds a NUL character/],
      ['X', `${canary}${'x'.repeat(65_536)}`, 6, /value has 65555 bytes; 65536 are the most/],
    ];
    for (const [name, input, exitCode, message] of wrong) {
      const { code, stdout, stderr } = await secrets(['set', name], input);
      assert.deepEqual([code, stdout], [exitCode, ''], stderr);
      assert.match(stderr, message);
      assert.equal(stderr.includes(canary), false);
    }
  });

  test('set asks on a terminal, and does not show what is typed', { skip: !findProgram('python3') }, async () => {
    const { code, screen } = await onTerminal(['secrets', 'set', 'TYPED'], canary);
    assert.equal(code, 0, screen);
    assert.match(screen, /Value of TYPED[^]*TYPED version 1/);
    assert.equal(screen.includes(canary), false);
    assert.equal(await sizeOf('TYPED'), canary.length);
  });

  test('list says names, versions and last use', async () => {
    const { stdout } = await secrets(['list', '--header']);
    const [header, ...rows] = stdout.trim().split('\n');
    assert.equal(header, 'NAME\tVERSION\tSET\tLAST USED');
    const named = rows.map((row) => row.split('\t')[0]);
    assert.deepEqual(named, [...named].sort());
    const [token] = await listed();
    assert.deepEqual(Object.keys(token ?? {}), ['id', 'name', 'version', 'createdAt', 'updatedAt', 'lastUsedAt']);
  });

  test('delete removes one, and tells the closest name for one that is not there', async () => {
    assert.deepEqual(await secrets(['delete', 'FROM_ENV']), {
      code: 0,
      stdout: 'FROM_ENV deleted\n',
      stderr: `server  ${door.url}\n`,
    });
    const again = await secrets(['delete', 'HF_TOKN']);
    assert.equal(again.code, 3);
    assert.match(again.stderr, /Did you mean "HF_TOKEN"\?/);
  });

  test('are seen with WRITE, and changed with ADMIN', async () => {
    const as = async (scope: string) => ({
      ASTRAML_TOKEN: await createToken(door.port, { projectId: project, scopes: [scope] }),
    });
    const [writer, reader] = [await as('WRITE'), await as('READ')];
    assert.match((await secrets(['list'], '', writer)).stdout, /^HF_TOKEN\t/m);
    const seen = await secrets(['list'], '', reader);
    assert.deepEqual([seen.code, seen.stdout], [4, '']);
    assert.match(seen.stderr, /You may not see the secrets of p-secrets[^]+WRITE/);
    for (const args of [
      ['set', 'HF_TOKEN'],
      ['delete', 'HF_TOKEN'],
    ]) {
      const { code, stderr } = await secrets(args, 'v', writer);
      assert.equal(code, 4);
      assert.match(stderr, /scope ADMIN/);
    }
  });
});

suite('submit --secret', () => {
  const submit = (args: string[]) =>
    run(['submit', '--model', 'm', '--dataset', 'd', '--json=id,number,state', ...args]);
  const envOf = async (stdout: string) => {
    const { id } = JSON.parse(stdout) as { id: string };
    const query = `{ job(id: "${id}") { env { name value secretName } } }`;
    return (await dataOf(door.port, { query }))['job']?.['env'] as unknown;
  };
  const ofSecret = (name: string, secretName = name) => ({ name, value: null, secretName });

  test('gives the job the secret as the variable of that name, over what the file says', async () => {
    const file = write(
      'job.yaml',
      'model: m\ndataset: d\nenv:\n  - { name: HF_TOKEN, from: { value: x } }\n  - { name: OTHER, from: { secret: TYPED } }\n',
    );
    await secrets(['set', 'TYPED'], 'v');
    const { code, stdout, stderr } = await submit(['-f', file, '--secret', 'HF_TOKEN', '--env', 'A=b']);
    assert.equal(code, 0, stderr);
    assert.deepEqual(await envOf(stdout), [
      ofSecret('OTHER', 'TYPED'),
      { name: 'A', value: 'b', secretName: null },
      ofSecret('HF_TOKEN'),
    ]);
  });

  test('of a name that the project lacks is refused with the closest', async () => {
    const { code, stderr } = await submit(['--secret', 'HF_TOKN']);
    assert.equal(code, 6);
    assert.match(
      stderr,
      /env\.0\.from\.secret: Project p-secrets has no secret HF_TOKN\.[^]+Did you mean "HF_TOKEN"\?/,
    );
  });

  test('with a value behind the name is a mistake that is not repeated', async () => {
    const { code, stderr } = await submit(['--secret', `HF_TOKEN=${canary}`]);
    assert.equal(code, 2);
    assert.match(stderr, /--secret takes the name of a secret alone/);
    assert.equal(stderr.includes(canary), false);
  });
});

/** Runs the command on a terminal of its own, types a line when it asks, and gives back what the screen got. */
async function onTerminal(args: string[], line: string): Promise<{ code: number; screen: string }> {
  const script = `
import fcntl, os, pty, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:-1])
screen, typed = b'', False
while True:
    try:
        part = os.read(fd, 65536)
    except OSError:
        break
    if not part:
        break
    screen += part
    if not typed and b'Value of' in screen:
        typed = True
        os.write(fd, sys.argv[-1].encode() + b'\\r')
sys.stdout.buffer.write(screen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;
  const child = spawn('python3', ['-c', script, process.execPath, binary, ...args, line], {
    env: { ...process.env, ASTRAML_URL: door.url, ASTRAML_TOKEN: adminToken, ASTRAML_PROJECT: project, TERM: 'xterm' },
    timeout: 30_000,
  });
  let screen = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (screen += text));
  const [code] = (await once(child, 'close')) as [number];
  return { code, screen };
}
