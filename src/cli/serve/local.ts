// Gateway and runner in one process, for `dev`, `demo` and tests. They talk as over a network, by
// HTTP and the bus, but the bus is in memory.
import { hostname } from 'node:os';
import { join } from 'node:path';
import { findGroupFolder, withoutGroups } from '../../agent/control-group.ts';
import { findGpus } from '../../agent/gpus.ts';
import { processExecutor } from '../../agent/process.ts';
import { type RunningRunner, startRunner } from '../../agent/runner.ts';
import type { RunnerOptions } from '../../agent/runner-options.ts';
import { type Client, createClient } from '../../client/client.ts';
import type { Config } from '../../config.ts';
import { type RunningGateway, startGateway } from '../../gateway/gateway.ts';
import type { Assignment } from '../../protocol/control.ts';
import { version } from '../../version.ts';
import { keepSecretKeys } from './keys.ts';

export type LocalOptions = {
  config: Config;
  /** Text of the administrator's token. */
  token: string;
  runnerToken: string;
  /** Upper bound of the GPUs in use; on a machine without GPUs, the number of virtual ones. */
  gpus?: number;
  /** Upper bound of jobs at once, with and without GPUs. */
  places?: number;
  graceMs?: number;
  onAttempt?: (event: 'started' | 'ended', assignment: Assignment, gatewayUrl: string) => void;
  onTrouble?: RunnerOptions['onTrouble'];
};

export type Local = {
  readonly gateway: RunningGateway;
  readonly runner: RunningRunner;
  readonly client: Client;
  /** Stops the runner, whose jobs are queued again, then the gateway. */
  stop(): Promise<void>;
};

const stopRunnerMs = 8_000;

export async function startLocal(options: LocalOptions): Promise<Local> {
  const { config, token, runnerToken } = options;
  const keys = config.secretKeys.length > 0 ? config.secretKeys : keepSecretKeys(join(config.dataDir, 'secret-keys'));
  // No rate limit, since one person on one machine shares the gateway with nobody.
  const gateway = await startGateway({ ...config, rateLimitPoints: 0, secretKeys: keys }, [
    { text: token, name: 'local administrator', scopes: ['ADMIN'] },
    { text: runnerToken, name: 'local runner', scopes: ['RUNNER'] },
  ]);
  const groupFolder = await findGroupFolder();
  if (process.platform === 'linux' && groupFolder === null) options.onTrouble?.(new Error(withoutGroups));
  try {
    const runner = await startRunner({
      url: gateway.url,
      token: runnerToken,
      attempts: { in: 'process', bus: gateway.store.bus },
      executor: processExecutor(groupFolder),
      name: hostname() || 'local',
      version,
      labels: [],
      gpus: await findGpus(options.gpus),
      places: options.places,
      workDir: join(config.dataDir, 'runner'),
      graceMs: options.graceMs ?? 30_000,
      host: process.env,
      onAttempt: (event, assignment) => options.onAttempt?.(event, assignment, gateway.url),
      onTrouble: options.onTrouble,
    });
    return {
      gateway,
      runner,
      client: createClient({ url: gateway.url, token }),
      async stop() {
        await runner.stop(stopRunnerMs);
        await gateway.stop();
      },
    };
  } catch (error) {
    await gateway.stop();
    throw error;
  }
}

/**
 * Returns the address of the page that follows a job. The token stands in the fragment, which
 * browsers send to no server.
 */
export function watchAddress(url: string, jobId: string, token: string): string {
  return `${url}/watch#job=${jobId}&token=${token}`;
}

/**
 * Returns the command of the example trainer, which runs for at least 65 s so that there is
 * something to watch.
 */
export function exampleCommand(): string[] {
  const trainer = new URL('../../../examples/digits/train.ts', import.meta.url);
  return [process.execPath, decodeURIComponent(trainer.pathname), '--at-least-seconds', '65'];
}

/** Creates the project, with the example trainer as its command. */
export async function createExampleProject(client: Client, id: string): Promise<void> {
  const { createProject } = await client.request<{ createProject: { __typename: string; message?: string } }>(
    `mutation ($input: CreateProjectInput!) {
      createProject(input: $input) { __typename ... on UserError { message } }
    }`,
    { input: { id, name: 'Demo', command: exampleCommand() } },
  );
  if (createProject.message !== undefined) throw new Error(createProject.message);
}
