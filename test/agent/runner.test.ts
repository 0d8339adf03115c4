// The runner's talk with a gateway that forgets it, stays silent or says nonsense.
import { expectNoLeaks } from '../support/leaks.ts';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { json } from 'node:stream/consumers';
import type { Executor } from '../../src/agent/executor.ts';
import { processExecutor } from '../../src/agent/process.ts';
import { startRunner } from '../../src/agent/runner.ts';
import { channels } from '../../src/bus/bus.ts';
import { memoryBus } from '../../src/bus/memory.ts';
import type { ClaimRequest } from '../../src/protocol/control.ts';
import { until } from '../support/until.ts';

const root = mkdtempSync(join(tmpdir(), 'runner-'));
after(async () => {
  rmSync(root, { recursive: true, force: true });
  await expectNoLeaks();
});

type Answer = { status: number; body: unknown } | null;
const refused = (status: number, code: string) => ({
  status,
  body: { errors: [{ message: code, extensions: { code } }] },
});

/** A gateway that answers as it is told; null leaves a request without an answer. */
async function startGateway(answer: (path: string, body: unknown) => Answer): Promise<{ url: string; server: Server }> {
  const server = createServer((request, response) => {
    void json(request).then((body) => {
      const answered = answer((request.url ?? '').replace('/runner/v1/', ''), body);
      if (answered)
        response.writeHead(answered.status, { 'content-type': 'application/json' }).end(JSON.stringify(answered.body));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

function optionsFor(url: string, troubles: unknown[], workDir: string) {
  return {
    url,
    token: 'token',
    attempts: { in: 'process' as const, bus: memoryBus() },
    executor: processExecutor(null),
    name: 'r',
    version: '1',
    labels: [],
    gpus: [{ index: 0, model: 'virtual', memoryBytes: 0 }],
    workDir,
    graceMs: 500,
    host: {},
    onTrouble: (error: unknown) => void troubles.push(error),
  };
}

test('a gateway with a new database makes it register again, under its new id', async () => {
  let registered = 0;
  const claims: ClaimRequest[] = [];
  const { url, server } = await startGateway((path, body) => {
    if (path === 'register')
      return { status: 200, body: { runnerId: `run_${++registered}`, heartbeatSeconds: 10, leaseSeconds: 30 } };
    claims.push(body as ClaimRequest);
    return registered === 1 ? refused(404, 'NOT_FOUND') : null;
  });
  const troubles: unknown[] = [];
  const options = optionsFor(url, troubles, join(root, 'again'));
  const runner = await startRunner(options);
  await until(() => claims.some(({ runnerId }) => runnerId === 'run_2'));
  assert.equal(registered, 2);
  await options.attempts.bus.publish(channels.runner('run_2'), 'no JSON');
  await options.attempts.bus.publish(channels.runner('run_2'), '');
  await runner.stop(500);
  await options.attempts.bus.close();
  server.closeAllConnections();
  server.close();
});

test('a claim whose answer was lost is repeated under its name, another has another', async () => {
  const claims: ClaimRequest[] = [];
  const { url, server } = await startGateway((path, body) => {
    if (path === 'register')
      return { status: 200, body: { runnerId: 'run_1', heartbeatSeconds: 10, leaseSeconds: 30 } };
    claims.push(body as ClaimRequest);
    if (claims.length === 1) return refused(503, 'UNAVAILABLE');
    return claims.length === 2 ? { status: 200, body: { assignment: null } } : null;
  });
  const troubles: unknown[] = [];
  const options = optionsFor(url, troubles, join(root, 'repeat'));
  const runner = await startRunner(options);
  await until(() => claims.length === 3);
  assert.equal(claims[0]?.requestId, claims[1]?.requestId);
  assert.notEqual(claims[1]?.requestId, claims[2]?.requestId);
  assert.equal(troubles.length, 1);
  await runner.stop(500);
  await options.attempts.bus.close();
  server.closeAllConnections();
  server.close();
});

test('what an earlier life left half-written does not keep it from starting', async () => {
  const attempts = join(root, 'half', 'attempts');
  for (const [name, text] of [
    ['att_1', '{"jobId": "jo'],
    ['att_2', ''],
    ['att_3', '5'],
  ] as const) {
    mkdirSync(join(attempts, name, 'spool'), { recursive: true });
    writeFileSync(join(attempts, name, 'attempt.json'), text);
  }
  const { url, server } = await startGateway((path) =>
    path === 'register' ? { status: 200, body: { runnerId: 'run_1', heartbeatSeconds: 10, leaseSeconds: 30 } } : null,
  );
  const options = optionsFor(url, [], join(root, 'half'));
  const runner = await startRunner(options);
  for (const name of ['att_1', 'att_2', 'att_3']) {
    assert.ok(!existsSync(join(attempts, name, 'spool')) && !existsSync(join(attempts, name, 'attempt.json')));
  }
  await runner.stop(500);
  await options.attempts.bus.close();
  server.closeAllConnections();
  server.close();
});

test('what an earlier life left and cannot be ended keeps its GPU, and is not said to be gone before it is', async () => {
  const folder = join(root, 'undying', 'attempts', 'att_1');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'attempt.json'), JSON.stringify({ jobId: 'job_1', attempt: '1', gpus: [0] }));
  const [claims, lost]: [ClaimRequest[], string[]] = [[], []];
  const { url, server } = await startGateway((path, body) => {
    if (path === 'register')
      return { status: 200, body: { runnerId: 'run_1', heartbeatSeconds: 10, leaseSeconds: 30 } };
    if (path === 'claim') claims.push(body as ClaimRequest);
    else lost.push(path);
    return path === 'claim' ? null : { status: 200, body: {} };
  });
  const troubles: unknown[] = [];
  const gone = Promise.withResolvers<void>();
  const endStrays: Executor['endStrays'] = async (_name, onLeft) => {
    onLeft?.([4711]);
    await gone.promise;
    return 1;
  };
  const options = optionsFor(url, troubles, join(root, 'undying'));
  const runner = await startRunner({ ...options, executor: { ...processExecutor(null), endStrays } });
  await until(() => claims.length === 1);
  assert.deepEqual([claims[0]?.freeGpus, lost], [[], []]);
  assert.match(String(troubles[0]), /job_1 .*4711/);
  gone.resolve();
  await until(() => claims.length === 2);
  assert.deepEqual([claims[1]?.freeGpus, lost], [[0], ['attempts/att_1/lost']]);
  await runner.stop(500);
  await options.attempts.bus.close();
  server.closeAllConnections();
  server.close();
});

test('a refused token is told at once', async () => {
  const { url, server } = await startGateway(() => refused(401, 'UNAUTHENTICATED'));
  await assert.rejects(startRunner(optionsFor(url, [], join(root, 'refused'))), {
    code: 'UNAUTHENTICATED',
    httpStatus: 401,
  });
  server.closeAllConnections();
  server.close();
});

test('a token that is refused later ends the claims, and is told once', async () => {
  let claims = 0;
  const { url, server } = await startGateway((path) => {
    if (path === 'register')
      return { status: 200, body: { runnerId: 'run_1', heartbeatSeconds: 10, leaseSeconds: 30 } };
    return ++claims === 1 ? { status: 200, body: { assignment: null } } : refused(401, 'UNAUTHENTICATED');
  });
  const troubles: unknown[] = [];
  const options = optionsFor(url, troubles, join(root, 'revoked'));
  const runner = await startRunner(options);
  assert.equal((await runner.refused).httpStatus, 401);
  await runner.drain();
  assert.deepEqual([claims, troubles.length], [2, 1]);
  await options.attempts.bus.close();
  server.closeAllConnections();
  server.close();
});

test('`runner start` whose token is revoked drains and ends with exit code 4', async () => {
  const { url, server } = await startGateway((path) => {
    if (path !== 'register') return refused(401, 'UNAUTHENTICATED');
    const redisUrl = 'redis://127.0.0.1:1'; // only a job would use it
    return { status: 200, body: { runnerId: 'run_1', heartbeatSeconds: 10, leaseSeconds: 30, redisUrl } };
  });
  const binary = join(import.meta.dirname, '../../bin/astraml.mjs');
  const env = { PATH: process.env['PATH'], ASTRAML_URL: url, ASTRAML_RUNNER_TOKEN: 'x'.repeat(40) };
  const child = spawn(process.execPath, [binary, 'runner', 'start', '--work-dir', join(root, 'exit')], { env });
  let output = '';
  child.stderr.on('data', (data: Buffer) => (output += data.toString()));
  const [code] = (await once(child, 'exit')) as [number];
  assert.equal(code, 4, output);
  assert.equal(output.split('\n').filter((line) => line.includes('"trouble"')).length, 1, output);
  server.closeAllConnections();
  server.close();
});
