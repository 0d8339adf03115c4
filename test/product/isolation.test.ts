// How far a job gets towards what is not its own: the runner's token and Redis address, another project's files, and by
// the token another project's job with its secret. On a runner as it is, and on one with a uid for each project.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { skipUnless } from '../support/absent.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { createProject, followLog, jobState, script, submit } from '../support/stack.ts';

after(() => expectNoLeaks());

/** Reaches for all that it can, then tells what it got. Above it stand the wrapper, the supervisor and the runner. */
const reach = script(`
  import { readFileSync } from 'node:fs';
  import { userInfo } from 'node:os';
  const got = (take) => { try { return take(); } catch (error) { return error.code; } };
  const parentOf = (pid) => Number(/\\) \\S (\\d+)/.exec(readFileSync('/proc/' + pid + '/stat', 'utf8'))[1]);
  const wrapper = process.ppid, supervisor = parentOf(wrapper), runner = parentOf(supervisor);
  const environ = (pid) => got(() => /RUNNER_TOKEN=|redis:/.test(readFileSync('/proc/' + pid + '/environ', 'utf8')) ? 'told' : 'closed');
  const cmdline = (pid) => /astraml_|redis:/.test(readFileSync('/proc/' + pid + '/cmdline', 'utf8')) ? 'told' : 'closed';
  const token = got(() => readFileSync(process.env.TOKEN_FILE, 'utf8').trim());
  const post = async (path, body) => (await fetch(process.env.ASTRAML_URL + '/runner/v1/' + path, {
    method: 'POST', headers: { 'content-type': 'application/json', authorization: 'Bearer ' + token }, body: JSON.stringify(body),
  })).json();
  const about = { name: 'rogue', version: '1', labels: ['elsewhere'], gpus: [], bootId: 'b' };
  const { runnerId } = await post('register', about);
  const claimed = runnerId ? await post('claim', { runnerId, freeGpus: [], requestId: 'r', waitSeconds: 1 }) : null;
  console.log('got ' + JSON.stringify({
    uid: process.getuid(),
    groups: process.getgroups(),
    environ: [runner, supervisor].map(environ),
    cmdline: [runner, supervisor].map(cmdline),
    memory: got(() => readFileSync('/proc/' + runner + '/mem').length),
    signal: got(() => process.kill(wrapper, 0)),
    token: token.length > 20 ? 'read' : token,
    other: got(() => readFileSync(process.env.OTHER_FILE, 'utf8')),
    secret: claimed?.assignment?.env.THEIRS ?? null,
    home: process.env.HOME, user: process.env.USER, logname: process.env.LOGNAME,
    status: /NoNewPrivs:.*/.exec(readFileSync('/proc/self/status', 'utf8'))[0].split(/\\s+/)[1],
  }));
`);

const skip = { ...skipUnless('own postgres'), ...skipUnless('own redis'), ...skipUnless('linux /proc') };

suite('a job that reaches for what is not its own', skip, () => {
  let cluster: Cluster;
  const folder = mkdtempSync(join(tmpdir(), 'isolation-'));
  const tokenFile = join(folder, 'token');
  const isolatedDir = mkdtempSync(join(tmpdir(), 'isolated-'));
  before(async () => {
    cluster = await startCluster({ gateways: 1, runner: { args: ['--label', 'open'] } });
    writeFileSync(tokenFile, `${cluster.runnerToken}\n`, { mode: 0o600 });
    for (const id of ['p-mine', 'p-theirs']) await createProject(cluster.client(0), id);
    const set = `mutation ($input: SetSecretInput!) { setSecret(input: $input) { __typename } }`;
    const secret = { projectId: 'p-theirs', name: 'THEIRS', value: 'their-secret-value' };
    assert.deepEqual(await cluster.client(0).request(set, { input: secret }), {
      setSecret: { __typename: 'SecretPayload' },
    });
  });
  after(async () => {
    await cluster.stop();
    for (const each of [folder, isolatedDir]) rmSync(each, { recursive: true, force: true });
  });

  const run = async (project: string, label: string, command: string[], env: object[] = [], more = {}) => {
    const { id } = await submit(cluster.client(0), project, {
      command,
      env,
      resources: { gpus: 0, labels: [label] },
      ...more,
    });
    const lines = (await followLog(cluster.client(0), id)).map(({ text }) => text);
    const { state } = await jobState(cluster.client(0), id);
    return { id, state, lines };
  };

  /** What a job of one project gets, beside a finished one of another project and one that waits for a runner. */
  async function reachOn(label: string): Promise<Record<string, unknown>> {
    const theirs = await run('p-theirs', label, ['sh', '-c', 'echo theirs > file; echo "file=$PWD/file"']);
    const file = theirs.lines.map((text) => /^file=(.*)/.exec(text)?.[1]).find((path) => path);
    const waiting = await submit(cluster.client(0), 'p-theirs', {
      command: ['true'],
      env: [{ name: 'THEIRS', from: { secret: 'THEIRS' } }],
      resources: { gpus: 0, labels: ['elsewhere'] },
    });
    const { state, lines } = await run('p-mine', label, reach, [
      { name: 'TOKEN_FILE', from: { value: tokenFile } },
      { name: 'OTHER_FILE', from: { value: file } },
    ]);
    assert.equal(state, 'SUCCEEDED', lines.join('\n'));
    const cancel = `mutation ($input: CancelJobInput!) { cancelJob(input: $input) { __typename } }`;
    await cluster.client(0).request(cancel, { input: { id: waiting.id } });
    return JSON.parse(lines.find((text) => text.startsWith('got '))?.slice(4) ?? '{}') as Record<string, unknown>;
  }

  test('finds no token in an environment, but all that the uid of the runner can read: docs/security.md says so', async () => {
    const got = await reachOn('open');
    assert.deepEqual(got['environ'], ['closed', 'closed']);
    assert.deepEqual(got['cmdline'], ['closed', 'closed']);
    assert.deepEqual([got['token'], got['other'], got['secret']], ['read', 'theirs\n', 'their-secret-value']);
    assert.match(
      readFileSync(join(import.meta.dirname, '../../docs/security.md'), 'utf8'),
      /A runner is one trust domain/,
    );
  });

  test('gets none of it with a uid for each project', skipUnless('own uids'), async () => {
    const start = {
      args: ['--label', 'isolated', '--isolate', 'users', '--token-file', tokenFile],
      env: { ASTRAML_RUNNER_TOKEN: undefined },
    };
    await cluster.startRunnerElsewhere('isolated', isolatedDir, start);
    const got = await reachOn('isolated');
    assert.deepEqual(got['environ'], ['EACCES', 'EACCES']);
    assert.deepEqual(got['cmdline'], ['closed', 'closed']);
    assert.deepEqual(
      [got['memory'], got['signal'], got['token'], got['other'], got['secret']],
      ['EACCES', 'EPERM', 'EACCES', 'EACCES', null],
    );
    // The other project came first.
    assert.deepEqual([got['uid'], got['groups'], got['status']], [70_001, [70_001], '1']);
    assert.deepEqual([got['user'], got['logname']], ['astraml-70001', 'astraml-70001']);
    assert.equal(got['home'], join(isolatedDir, 'users/70001/home'));
    assert.deepEqual(ownerOf(String(got['home'])), [70_001, 0o700]);
  });

  test('works as ever there: output, stop file, folders, files of its own', skipUnless('own uids'), async () => {
    const trap = `trap 'cat "$ASTRAML_STOP_FILE" > stopped; cat stopped; exit 0' TERM`;
    const source = `${trap}; id -u; cat "$ASTRAML_CONFIG" | head -c 1; echo; echo kept > "$ASTRAML_OUTPUT_DIR/kept"; echo "again" > /dev/stderr; echo "at=$PWD"; touch "$HOME/mine"; while :; do sleep 0.1; done`;
    const { state, lines } = await run('p-mine', 'isolated', ['sh', '-c', source], [], { timeoutSeconds: 2 });
    assert.equal(state, 'TIMED_OUT', lines.join('\n'));
    assert.ok(lines.includes('70001') && lines.includes('again'), lines.join('\n'));
    assert.ok(
      lines.some((text) => text.startsWith('{"reason":"TIMEOUT"')),
      lines.join('\n'),
    );
    const work = lines.map((text) => /^at=(.*)/.exec(text)?.[1]).find((path) => path) ?? '';
    const attempt = join(work, '..');
    assert.deepEqual([work, join(attempt, 'output')].map(ownerOf), [
      [70_001, 0o700],
      [70_001, 0o700],
    ]);
    assert.deepEqual(ownerOf(join(attempt, 'config.json')), [70_001, 0o600]);
    assert.deepEqual(ownerOf(join(attempt, 'supervisor.log')), [0, 0o600]);
    assert.deepEqual(ownerOf(join(isolatedDir, 'sockets')), [0, 0o700]);
    assert.equal(readFileSync(join(attempt, 'output/kept'), 'utf8'), 'kept\n');
  });

  function ownerOf(path: string): [number, number] {
    const { uid, mode } = statSync(path);
    return [uid, mode & 0o7777];
  }
});
