// A deployment as in production: Postgres, Redis, gateways (`astraml serve`) and a runner (`astraml
// runner start`), each in its own process, which a test may kill and restart.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Client, createClient } from '../../src/client/client.ts';
import { newTokenText } from '../../src/project/token.ts';
import { type Child, spawnNode } from './child.ts';
import { freePort } from './port.ts';
import { createDatabase, type PostgresServer, startPostgres } from './postgres.ts';
import { type RedisServer, startRedis } from './redis.ts';
import { newSecretKeys } from './secret-keys.ts';
import { until } from './until.ts';

const binary = fileURLToPath(new URL('../../bin/astraml.mjs', import.meta.url));
const startMs = 120_000;

/** Flags and variables of a runner, over the default ones. */
export type RunnerStart = { args?: string[]; env?: Record<string, string | undefined> };

export type Cluster = {
  readonly postgres: PostgresServer;
  readonly redis: RedisServer;
  readonly databaseUrl: string;
  readonly token: string;
  readonly runnerToken: string;
  /** Folder of the runner's files. */
  readonly workDir: string;
  /** Addresses of the gateways; a restarted gateway keeps its own. */
  readonly urls: string[];
  readonly gateways: Child[];
  readonly runner: () => Child;
  /** Returns a client of the gateway with this index. */
  client(index: number): Client;
  startGateway(index: number): Promise<void>;
  startRunner(): Promise<void>;
  /** Starts another runner with its own work folder, as on another machine. */
  startRunnerElsewhere(name: string, workDir: string, options?: RunnerStart): Promise<Child>;
  /** Returns the output of all processes, ended ones included. */
  output(): string;
  stop(): Promise<void>;
};

export async function startCluster(options: {
  gateways: number;
  leaseSeconds?: number;
  logLevel?: string;
  runner?: RunnerStart;
}): Promise<Cluster> {
  const [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
  const { url: databaseUrl } = await createDatabase(postgres);
  const [token, runnerToken] = [newTokenText(), newTokenText()];
  const secretKeys = newSecretKeys('k1');
  const workDir = mkdtempSync(join(tmpdir(), 'astraml-runner-'));
  const ports = await Promise.all(Array.from({ length: options.gateways }, () => freePort()));
  const urls = ports.map((port) => `http://127.0.0.1:${port}`);
  const gateways: Child[] = [];
  const all: Child[] = [];
  let runner: Child | undefined;
  const others: Child[] = [];

  const begin = (args: string[], env: Record<string, string | undefined>): Child => {
    const child = spawnNode([binary, ...args], { env });
    all.push(child);
    return child;
  };
  const startGateway = async (index: number) => {
    gateways[index] = begin(['serve'], {
      PORT: String(ports[index]),
      DATABASE_URL: databaseUrl,
      REDIS_URL: redis.url,
      ASTRAML_BOOTSTRAP_TOKEN: token,
      ASTRAML_BOOTSTRAP_RUNNER_TOKEN: runnerToken,
      ASTRAML_SECRET_KEYS: secretKeys,
      ASTRAML_RUNNER_LEASE_SECONDS: String(options.leaseSeconds ?? 30),
      ASTRAML_METRICS_PORT: '0',
      LOG_LEVEL: options.logLevel ?? 'warn',
    });
    const answers = () =>
      fetch(`${urls[index]}/readyz`).then(
        (answer) => answer.ok,
        () => false,
      );
    await until(answers, { timeoutMs: startMs, what: `gateway ${index}: ${gateways[index].output()}` });
  };
  const beginRunner = (name: string, folder: string, { args = [], env = {} }: RunnerStart = {}) =>
    begin(['runner', 'start', '--name', name, '--work-dir', folder, '--grace', '2', ...args], {
      ASTRAML_URL: urls[0] ?? '',
      ASTRAML_RUNNER_TOKEN: runnerToken,
      ...env,
    });
  const untilReady = (child: Child) => child.untilLine(/"event":"ready"/, { timeoutMs: startMs });
  const startRunner = async () => {
    runner = beginRunner('test', workDir, options.runner);
    await untilReady(runner);
  };
  const startRunnerElsewhere = async (name: string, folder: string, start?: RunnerStart) => {
    const child = beginRunner(name, folder, start);
    others.push(child);
    await untilReady(child);
    return child;
  };
  await Promise.all(urls.map((_, index) => startGateway(index)));
  await startRunner();

  return {
    postgres,
    redis,
    databaseUrl,
    token,
    runnerToken,
    workDir,
    urls,
    gateways,
    runner: () => runner ?? all[0]!,
    client: (index) => createClient({ url: urls[index] ?? '', token }),
    startGateway,
    startRunner,
    startRunnerElsewhere,
    output: () => all.map((child) => child.output()).join('\n'),
    async stop() {
      // The second SIGTERM makes a runner hand its attempts back at once; after one, it would only
      // drain, and its supervisors would outlive it.
      const runners = [...others, ...(runner ? [runner] : [])];
      const stopped = runners.map((one) => {
        one.kill('SIGTERM');
        one.kill('SIGTERM');
        return one.stop({ timeoutMs: 15_000 });
      });
      await Promise.all(stopped);
      await Promise.all(gateways.map((gateway) => gateway.stop()));
      await Promise.all([postgres.stop(), redis.stop()]);
      rmSync(workDir, { recursive: true, force: true });
    },
  };
}
