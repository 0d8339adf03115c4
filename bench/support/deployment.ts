// Deployment under measurement: a gateway process (`astraml serve`) with its own Postgres and
// Redis. Postgres is durable, as in production: a commit waits for the disk.
import { rmSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Client, createClient } from '../../src/client/client.ts';
import { newTokenText } from '../../src/project/token.ts';
import { type Assignment, claimAnswer, registerAnswer } from '../../src/protocol/control.ts';
import { type Child, spawnNode } from '../../test/support/child.ts';
import { call } from '../../test/support/feeder.ts';
import { freePort } from '../../test/support/port.ts';
import { createDatabase, type PostgresServer, startPostgres } from '../../test/support/postgres.ts';
import { type RedisServer, startRedis } from '../../test/support/redis.ts';
import { newSecretKeys } from '../../test/support/secret-keys.ts';
import { createProject, submit } from '../../test/support/stack.ts';
import { until } from '../../test/support/until.ts';

export const project = 'p-bench';

export type Deployment = {
  readonly postgres: PostgresServer;
  readonly redis: RedisServer;
  readonly databaseUrl: string;
  readonly gateway: Child;
  readonly url: string;
  readonly token: string;
  readonly runnerToken: string;
  readonly client: Client;
  /** Folder for files, removed by `stop`. */
  readonly folder: string;
  stop(): Promise<void>;
};

/**
 * Starts a deployment with the project `p-bench`. `nodeArgs` are options for the gateway's node,
 * e.g. `--cpu-prof`; `env` holds its variables.
 */
export async function deploy(options: { nodeArgs?: string[]; env?: Record<string, string> } = {}): Promise<Deployment> {
  const [postgres, redis] = await Promise.all([startPostgres({ durable: true }), startRedis()]);
  const { url: databaseUrl } = await createDatabase(postgres);
  const [token, runnerToken] = [newTokenText(), newTokenText()];
  const folder = mkdtempSync(join(tmpdir(), 'astraml-bench-'));
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const binary = fileURLToPath(new URL('../../bin/astraml.mjs', import.meta.url));
  const gateway = spawnNode([...(options.nodeArgs ?? []), binary, 'serve'], {
    env: {
      PORT: String(port),
      DATABASE_URL: databaseUrl,
      REDIS_URL: redis.url,
      ASTRAML_BOOTSTRAP_TOKEN: token,
      ASTRAML_BOOTSTRAP_RUNNER_TOKEN: runnerToken,
      ASTRAML_SECRET_KEYS: newSecretKeys('k1'),
      ASTRAML_METRICS_PORT: '0',
      ASTRAML_RATE_LIMIT_POINTS: '0',
      ASTRAML_MAX_SOCKETS_PER_TOKEN: '20000',
      LOG_LEVEL: 'warn',
      ...options.env,
    },
  });
  const answers = () =>
    fetch(`${url}/readyz`).then(
      (answer) => answer.ok,
      () => false,
    );
  await until(answers, { timeoutMs: 60_000, everyMs: 100, what: `the gateway: ${gateway.output()}` });
  const client = createClient({ url, token });
  await createProject(client, project, ['true']);
  return {
    postgres,
    redis,
    databaseUrl,
    gateway,
    url,
    token,
    runnerToken,
    client,
    folder,
    async stop() {
      await gateway.stop();
      const output = gateway
        .output()
        .replace(/^listening on .*$/m, '')
        .trim();
      if (output) console.log(`the gateway said:\n${output.slice(-4_000)}`);
      await Promise.all([postgres.stop(), redis.stop()]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Submits jobs, and claims all of them for one runner without a process. */
export async function claimJobs(
  { url, client, runnerToken }: Deployment,
  count: number,
  spec: Record<string, unknown> = {},
): Promise<{ runnerId: string; assignments: Assignment[] }> {
  const gpus = Array.from({ length: Math.min(count, 64) }, (_, index) => ({ index, model: 'virtual', memoryBytes: 0 }));
  const sign = { name: `bench-${Date.now()}`, version: '0', labels: [], gpus, bootId: 'boot' };
  const { runnerId } = registerAnswer.parse(await call(url, runnerToken, 'register', sign));
  const assignments: Assignment[] = [];
  for (let index = 0; index < count; index++) {
    await submit(client, project, { ...spec });
    const request = { runnerId, freeGpus: gpus.map((gpu) => gpu.index), requestId: `r${index}`, waitSeconds: 5 };
    const { assignment } = claimAnswer.parse(await call(url, runnerToken, 'claim', request));
    if (!assignment) throw new Error('There is no job to claim.');
    assignments.push(assignment);
  }
  return { runnerId, assignments };
}

/**
 * Reads whole numbers from the command line: `{ lines: 1000 }` defines `--lines` with the default
 * 1000.
 */
export function readNumbers<Name extends string>(defaults: Record<Name, number>): Record<Name, number> {
  const names = Object.keys(defaults) as Name[];
  const { values } = parseArgs({
    options: Object.fromEntries([...names, 'profile'].map((name) => [name, { type: 'string' as const }])),
  });
  const read = (name: Name) => {
    const text = values[name];
    if (text === undefined) return defaults[name];
    const value = Number(text);
    if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} takes a whole number above 0, not ${text}.`);
    return value;
  };
  return Object.fromEntries(names.map((name) => [name, read(name)])) as Record<Name, number>;
}

/**
 * Returns node options for `--profile <folder>`: the gateway writes a CPU profile into the folder
 * when it ends.
 */
export function profileArgs(): string[] {
  const at = process.argv.indexOf('--profile');
  const folder = at > 0 ? process.argv[at + 1] : undefined;
  return folder ? ['--cpu-prof', `--cpu-prof-dir=${folder}`] : [];
}
