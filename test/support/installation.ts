// A whole installation in processes of its own, in the two ways in which the product runs:
// `served`, two gateways and two runners on Postgres and Redis, and `embedded`, all in one process.
// Tests use both through one interface.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import postgres from 'postgres';
import { type Client, createClient } from '../../src/client/client.ts';
import type { NeedName } from './absent.ts';
import { spawnNode } from './child.ts';
import { startCluster } from './cluster.ts';

export type Row = Record<string, unknown>;

export type Installation = {
  readonly kind: 'served' | 'embedded';
  /** Addresses of the gateways. */
  readonly urls: readonly string[];
  /** Text of the administrator's token. */
  readonly token: string;
  /** Clients of the first and of the last gateway; the same one for a single gateway. */
  readonly first: Client;
  readonly last: Client;
  /** Runs a statement in the database. */
  sql(statement: string): Promise<Row[]>;
  /**
   * Delays of the event loop since the last call, in milliseconds; null when the installation has
   * several processes.
   */
  loopDelay(): Promise<{ p50: number; p99: number; max: number } | null>;
  /** Returns the output of gateways and runners. */
  output(): string;
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
};

export async function startServed(): Promise<Installation> {
  const cluster = await startCluster({ gateways: 2 });
  const folder = mkdtempSync(join(tmpdir(), 'astraml-runner-'));
  const database = postgres(cluster.databaseUrl, { max: 1, onnotice: () => {} });
  try {
    await cluster.startRunnerElsewhere('second', folder);
  } catch (error) {
    await database.end();
    await cluster.stop();
    throw error;
  }
  const stop = async () => {
    await database.end({ timeout: 5 });
    await cluster.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  return {
    kind: 'served',
    urls: cluster.urls,
    token: cluster.token,
    first: cluster.client(0),
    last: cluster.client(1),
    sql: (statement) => database.unsafe(statement),
    loopDelay: () => Promise.resolve(null),
    output: () => cluster.output(),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

export type Embedded = Omit<Installation, 'loopDelay'> & {
  loopDelay(): Promise<{ p50: number; p99: number; max: number }>;
  /** Stops the runner; later jobs wait. */
  stopRunner(): Promise<void>;
};

/** Starts an embedded installation; `env` are variables of the gateway. */
export async function startEmbedded(env: Record<string, string> = {}): Promise<Embedded> {
  const child = spawnNode([fileURLToPath(new URL('./stack-child.ts', import.meta.url))], {
    env: { CHILD_ENV: JSON.stringify(env) },
  });
  const stop = async () => void (await child.stop({ timeoutMs: 20_000 }));
  const started = child.untilLine(/control (\d+) gateway (\S+) token (\S+)/, { timeoutMs: 240_000 });
  await started.catch(stop);
  const [, control, url = '', token = ''] = await started;
  const ask = async (path: string, body = ''): Promise<unknown> => {
    const answer = await fetch(`http://127.0.0.1:${control}${path}`, { method: 'POST', body });
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  };
  const client = createClient({ url, token });
  return {
    kind: 'embedded',
    urls: [url],
    token,
    first: client,
    last: client,
    sql: async (statement) => (await ask('/sql', statement)) as Row[],
    loopDelay: async () => (await ask('/delay')) as { p50: number; p99: number; max: number },
    stopRunner: async () => void (await ask('/stop-runner')),
    output: () => child.output(),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

type Kind = { kind: Installation['kind']; needs: NeedName[]; start(): Promise<Installation> };

const served: Kind = { kind: 'served', needs: ['own postgres', 'own redis'], start: startServed };
const embedded: Kind = { kind: 'embedded', needs: [], start: startEmbedded };

/**
 * Installations on which a test runs, each with the programs that it needs. `npm run
 * test:bystander` uses both, which takes twice as long.
 */
export const installations: readonly Kind[] =
  process.env.ASTRAML_TEST_INSTALLATIONS === 'all' ? [served, embedded] : [served];
