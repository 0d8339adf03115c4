// What `docker compose up` starts, without a container engine: the files fit each other and the code, and the
// commands, run as processes with their environment, take a job to its end.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { maxEntryBytes } from '../../src/bus/bus.ts';
import { createClient } from '../../src/client/client.ts';
import { runnerVariables } from '../../src/cli/serve/runner-variables.ts';
import { variables } from '../../src/variables.ts';
import { skipUnless } from '../support/absent.ts';
import { type Deployment, deploy, secrets } from '../support/deployment.ts';
import { fileOf, instruction, readCompose, readDockerfile, readText } from '../support/compose.ts';
import { createProject, followLog, jobState, submit } from '../support/stack.ts';
import { until } from '../support/until.ts';

const { services, networks, volumes } = readCompose(secrets);
const stages = readDockerfile();

describe('docker-compose.yml', () => {
  test('asks for every secret, by name', () => {
    for (const name of Object.keys(secrets)) {
      assert.throws(() => readCompose({ ...secrets, [name]: '' }), new RegExp(`^Error: ${name}: .+`));
    }
  });

  test('asks for nothing that docs/running.md does not name', () => {
    const asked = new Set(readText('docker-compose.yml').match(/(?<=\$\{)\w+/g));
    const running = readText('docs/running.md');
    assert.deepEqual(
      [...asked].filter((name) => !running.includes(name)),
      [],
    );
  });

  test('names only variables that the gateway and the runner read', () => {
    const { gateway, runner } = services;
    const unknown = Object.keys(gateway?.environment ?? {}).filter((name) => !(name in variables));
    assert.deepEqual(unknown, []);
    for (const name of Object.keys(runner?.environment ?? {}))
      assert.ok(name in runnerVariables, `${name} is not read`);
  });

  test('tells of every service whether it works; only the runner is heard by the gateway instead', () => {
    const silent = Object.entries(services).filter(([, { healthcheck, build }]) => {
      const byImage = build !== undefined && instruction(stages, build.target, 'HEALTHCHECK') !== undefined;
      return healthcheck?.disable || !(healthcheck?.test || byImage);
    });
    assert.deepEqual(
      silent.map(([name]) => name),
      ['runner'],
    );
  });

  test('starts each service when those that it needs work, and again when it ends', () => {
    for (const [name, { depends_on: needs, restart }] of Object.entries(services)) {
      assert.equal(restart, 'unless-stopped', name);
      for (const [needed, { condition }] of Object.entries(needs)) {
        assert.ok(services[needed], `${name} needs ${needed}`);
        assert.equal(condition, 'service_healthy');
      }
    }
    for (const name of ['gateway', 'runner']) assert.equal(services[name]?.init, true, `${name} has no init`);
    assert.equal(services['gateway']?.deploy?.replicas, 2);
  });

  test('publishes one port, on this machine', () => {
    const published = Object.values(services).flatMap(({ ports }) => ports);
    assert.deepEqual(published, ['127.0.0.1:4000:4000']);
    assert.equal(networks['facts']?.internal, true);
    assert.deepEqual(
      services['runner']?.networks,
      ['runners'],
      'jobs must not reach Postgres, nor /metrics of a gateway',
    );
  });

  test('gives nobody a capability that is not needed, and jobs of the runner none', () => {
    const added = Object.fromEntries(Object.entries(services).map(([name, { cap_add: caps = [] }]) => [name, caps]));
    const ofRunner = ['SETUID', 'SETGID', 'SETPCAP', 'CHOWN', 'FOWNER', 'DAC_OVERRIDE', 'KILL'];
    const ofPostgres = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'SETGID', 'SETUID'];
    assert.deepEqual(added, { postgres: ofPostgres, redis: [], gateway: [], proxy: [], runner: ofRunner });
    for (const [name, service] of Object.entries(services)) {
      assert.deepEqual([service.cap_drop, service.security_opt], [['ALL'], ['no-new-privileges:true']], name);
      assert.ok(service.pids_limit, name);
    }
    assert.equal(services['runner']?.user, 'root');
    assert.equal(services['runner'].environment['ASTRAML_RUNNER_ISOLATE'], 'users');
    const reached = Object.entries(services).filter(([, { networks }]) => networks.includes('runners'));
    assert.deepEqual(reached.map(([name]) => name).toSorted(), ['proxy', 'redis', 'runner']);
  });

  test('lets Redis take no argument that is larger than an entry of the uplink', () => {
    assert.equal(maxEntryBytes, 1024 ** 2);
    assert.match(services['redis']?.command?.join(' ') ?? '', / --proto-max-bulk-len 1mb\b/);
  });

  test('mounts what exists', () => {
    for (const mount of Object.values(services).flatMap((service) => service.volumes)) {
      const [source = ''] = mount.split(':');
      assert.ok(source.startsWith('./') ? existsSync(fileOf(source)) : source in volumes, mount);
    }
  });
});

describe('the images', () => {
  test('are made of what exists and is sent to the builder', () => {
    const sent = readText('.dockerignore')
      .split('\n')
      .filter((line) => line.startsWith('!'))
      .map((line) => line.slice(1));
    const copied = stages
      .flatMap(({ lines }) => lines)
      .flatMap((line) => /^COPY (?!--from)(.+) \S+$/.exec(line)?.[1] ?? []);
    for (const source of copied.flatMap((list) => list.split(' '))) {
      assert.ok(existsSync(fileOf(source)), `${source} does not exist`);
      assert.ok(sent.includes(source), `${source} is ignored`);
    }
    for (const { build } of Object.values(services)) {
      if (build) assert.equal(instruction(stages, build.target, 'USER'), 'node');
    }
  });
});

describe('two gateways and a runner, with the commands of the images', skipUnless('postgres', 'own redis'), () => {
  let all: Deployment;
  before(async () => void (all = await deploy()));
  after(async () => {
    await all?.stop();
    await expectNoLeaks();
  });

  test('take a job from one gateway to its end, followed through the other', async () => {
    const [one, other] = all.gateways.map(({ url }) => createClient({ url, token: secrets.ASTRAML_BOOTSTRAP_TOKEN }));
    assert.ok(one && other);
    await createProject(one, 'p-digits', [process.execPath, fileOf('examples/digits/train.ts'), '--samples', '320']);
    const job = await submit(one, 'p-digits', { hyperparams: { epochs: 1 }, resources: { gpus: 1 } });
    const lines = await followLog(other, job.id);
    const { state, stateReason } = await jobState(other, job.id);
    assert.equal(state, 'SUCCEEDED', stateReason?.message);
    assert.ok(lines.some(({ text }) => text.startsWith('result: eval/loss')));
    assert.deepEqual(
      lines.map(({ seq }) => seq),
      lines.map((_, index) => index + 1),
    );
  });

  test('are heard at once through the proxy, over Server-Sent Events too', skipUnless('haproxy'), async () => {
    const client = createClient({ url: all.url, token: secrets.ASTRAML_BOOTSTRAP_TOKEN });
    await createProject(client, 'p-quiet', ['true']);
    const job = await submit(client, 'p-quiet', { resources: { gpus: 64 } }); // nobody has so many: it waits
    const ended = new AbortController();
    const answer = await fetch(`${all.url}/graphql`, {
      method: 'POST',
      headers: {
        accept: 'text/event-stream',
        authorization: `Bearer ${secrets.ASTRAML_BOOTSTRAP_TOKEN}`,
        'content-type': 'application/json',
      },
      body: JSON.stringify({ query: `subscription { jobLogs(jobId: "${job.id}") { caughtUp done } }` }),
      signal: AbortSignal.any([ended.signal, AbortSignal.timeout(5_000)]),
    });
    let text = '';
    for await (const chunk of answer.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      text += chunk;
      if (text.includes('"caughtUp"')) break;
    }
    ended.abort();
    assert.match(text, /"done":false/);
  });

  test('go on behind one port when a gateway stops', skipUnless('haproxy'), async () => {
    const client = createClient({ url: all.url, token: secrets.ASTRAML_BOOTSTRAP_TOKEN, retryForMs: 0 });
    await createProject(client, 'p-short', ['sh', '-c', 'echo one; sleep 3; echo two']);
    const job = await submit(client, 'p-short', {});
    const following = followLog(client, job.id);
    await until(async () => (await jobState(client, job.id)).state === 'RUNNING', { timeoutMs: 10_000 });
    await all.gateways[0]?.process.stop();
    assert.equal((await fetch(`${all.url}/readyz`)).status, 200);
    const texts = (await following).map(({ text }) => text);
    assert.ok(texts.includes('one') && texts.includes('two'), texts.join('\n'));
    assert.equal((await jobState(client, job.id)).state, 'SUCCEEDED');
  });
});
