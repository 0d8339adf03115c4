// Runs the services of docker-compose.yml as processes of this machine: their commands and
// environment, with names and ports of the compose network replaced by loopback.
import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { isHere } from './absent.ts';
import { type Child, spawnNode } from './child.ts';
import { commandOf, fileOf, readCompose, readText, type Service } from './compose.ts';
import { findProgram, installProgram } from './install.ts';
import { freePort } from './port.ts';
import { createDatabase, startPostgres } from './postgres.ts';
import { findRedis } from './redis.ts';
import { newSecretKeys } from './secret-keys.ts';
import { type Server, startServer } from './server.ts';
import { until } from './until.ts';

/** Values of the variables that the compose file requires. */
export const secrets = {
  POSTGRES_PASSWORD: 'postgres'.repeat(4),
  REDIS_GATEWAY_PASSWORD: 'gateway'.repeat(5),
  REDIS_RUNNER_PASSWORD: 'runner'.repeat(6),
  ASTRAML_BOOTSTRAP_TOKEN: 'administrator'.repeat(3),
  ASTRAML_RUNNER_TOKEN: 'machine'.repeat(5),
  ASTRAML_SECRET_KEYS: newSecretKeys('k1'),
};

const passwords: Record<string, string> = {
  gateway: secrets.REDIS_GATEWAY_PASSWORD,
  runner: secrets.REDIS_RUNNER_PASSWORD,
};

const startMs = 30_000;

function serviceOf(name: string): Service {
  const service = readCompose(secrets).services[name];
  if (!service) throw new Error(`there is no service ${name}`);
  return service;
}

export type ComposeRedis = Pick<Server, 'port' | 'stop' | 'log'> & {
  /**
   * Returns an address for a user with its password, or with another one; without a user for no
   * `user`.
   */
  url(user?: string, password?: string): string;
};

/** Starts Redis by the command of the compose file; resolves once its health check succeeds. */
export async function startComposeRedis(): Promise<ComposeRedis> {
  await installProgram('redis-server', () => findRedis() !== undefined);
  const { command = [], environment, healthcheck } = serviceOf('redis');
  const folder = mkdtempSync(join(tmpdir(), 'redis-'));
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  const script = (port: number) =>
    (command[2] ?? '')
      .replaceAll('/tmp/', `${folder}/`)
      .replaceAll('/etc/astraml', fileOf('docker'))
      .trimEnd()
      .concat(` --port ${port} --bind 127.0.0.1 --dir ${folder}`);
  const check = (port: number) => (healthcheck?.test?.[1] ?? '').replace('redis-cli', `redis-cli -p ${port}`);
  const server = await startServer({
    name: 'Redis of compose',
    folder,
    command: (port) => ({ file: '/usr/bin/env', args: [...variables, ...command.slice(0, 2), script(port)] }),
    check: async (port) => {
      await promisify(execFile)('/bin/sh', ['-c', check(port)], { env: { PATH: process.env.PATH, ...environment } });
    },
    endSignal: 'SIGTERM',
    stopSignal: 'KILL',
  });
  return {
    ...server,
    url: (user, password = passwords[user ?? '']) =>
      `redis://${user ? `${user}:${password}@` : ''}127.0.0.1:${server.port}`,
  };
}

export type Deployment = {
  /** Address of the proxy when haproxy is installed, else of the first gateway. */
  url: string;
  gateways: { url: string; process: Child }[];
  /** Returns the output of the processes. */
  output(): string;
  stop(): Promise<void>;
};

/** Starts the services of `docker compose up`; resolves when the gateway answers. */
export async function deploy(): Promise<Deployment> {
  const folder = mkdtempSync(join(tmpdir(), 'deployment-'));
  const ends: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })];
  const children: Child[] = [];
  const stop = async () => {
    for (const end of ends.splice(0).reverse()) await end();
  };
  try {
    const [postgres, redis] = await Promise.all([startPostgres(), startComposeRedis()]);
    ends.push(() => Promise.all([postgres.stop(), redis.stop()]));
    const database = await createDatabase(postgres);
    const start = (name: string, replace: [string, string][], env: Record<string, string>) => {
      const own = Object.entries(serviceOf(name).environment);
      const put = (value: string) => replace.reduce((text, [from, to]) => text.replaceAll(from, to), value);
      const given = { ...Object.fromEntries(own.map(([key, value]) => [key, put(value)])), ...env };
      const child = spawnNode(commandOf(name), { cwd: folder, env: given });
      ends.push(() => child.stop());
      children.push(child);
      return child;
    };

    const gateways: Deployment['gateways'] = [];
    for (const port of [await freePort(), await freePort()]) {
      const process = start('gateway', [['@redis:6379', `@127.0.0.1:${redis.port}`]], {
        DATABASE_URL: database.url,
        HOST: '127.0.0.1',
        PORT: String(port),
        ASTRAML_METRICS_PORT: '0', // 0, since both gateways run on one host
      });
      gateways.push({ url: `http://127.0.0.1:${port}`, process });
    }
    await Promise.all(gateways.map(({ url, process }) => untilReady(url, process)));
    let url = gateways[0]?.url ?? '';
    if (isHere('haproxy')) {
      const proxy = await startProxy(gateways.map((gateway) => new URL(gateway.url).host));
      ends.push(() => proxy.stop());
      url = `http://127.0.0.1:${proxy.port}`;
    }
    chmodSync(folder, 0o711); // other users may pass through to their folders
    start('runner', [['http://proxy:4000', url]], {
      ASTRAML_RUNNER_WORK_DIR: join(folder, 'runner'),
      ...(isHere('own uids') ? {} : { ASTRAML_RUNNER_ISOLATE: '' }),
    });
    return { url, gateways, stop, output: () => children.map((child) => child.output()).join('\n') };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Starts the proxy with its own configuration, in which addresses replace Docker's name server. */
async function startProxy(gateways: string[]): Promise<Server> {
  const folder = mkdtempSync(join(tmpdir(), 'proxy-'));
  const file = join(folder, 'haproxy.cfg');
  const servers = gateways.map((address, index) => `  server gateway${index} ${address}`).join('\n');
  const template = readText('docker/haproxy.cfg').replace(/^ {2}server-template .*$/m, servers);
  return startServer({
    name: 'the proxy of compose',
    folder,
    command(port) {
      writeFileSync(file, template.replace('bind :4000', `bind 127.0.0.1:${port}`));
      return { file: findProgram('haproxy') ?? '', args: ['-db', '-f', file] };
    },
    check: (port) => requireReady(`http://127.0.0.1:${port}`),
    endSignal: 'SIGTERM',
    stopSignal: 'KILL',
  });
}

async function requireReady(url: string): Promise<void> {
  const { status } = await fetch(`${url}/readyz`, { headers: { connection: 'close' } });
  if (status !== 200) throw new Error(`/readyz of ${url} answers ${status}`);
}

async function untilReady(url: string, process: Child): Promise<void> {
  const isReady = () =>
    requireReady(url).then(
      () => true,
      () => false,
    );
  const ended = process.untilEnd({ timeoutMs: startMs }).then(() => {
    throw new Error(`the process ended:\n${process.output()}`);
  });
  await Promise.race([until(isReady, { timeoutMs: startMs, everyMs: 100, what: `${url} is ready` }), ended]);
}
