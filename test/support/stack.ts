// The whole product in this process, for tests: gateway and runner on an embedded or a given
// database, in a folder of their own. Every part is real; only port and folder are chosen here.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Client } from '../../src/client/client.ts';
import { type Local, startLocal } from '../../src/cli/serve/local.ts';
import { readConfig } from '../../src/config.ts';
import { newTokenText } from '../../src/project/token.ts';
import { skipUnless } from './absent.ts';
import { seedDataDir } from './embedded.ts';
import { startDatabase } from './postgres.ts';

export type Stack = Local & {
  readonly url: string;
  /** Text of the administrator's token. */
  readonly token: string;
  readonly client: Client;
  readonly dataDir: string;
  stop(): Promise<void>;
};

type StackOptions = {
  env?: Record<string, string>;
  gpus?: number;
  places?: number;
  graceMs?: number;
  dataDir?: string;
};

/** Starts a stack on a fresh database of a real server where there is one, else embedded. */
export async function startStackOnServer(options: StackOptions = {}): Promise<Stack> {
  if (skipUnless('postgres').skip !== undefined) return startStack(options);
  const database = await startDatabase();
  const stack = await startStack({ ...options, env: { DATABASE_URL: database.url, ...options.env } });
  return {
    ...stack,
    async stop() {
      await stack.stop();
      await database.stop();
    },
  };
}

/**
 * Starts a stack; `env` are variables of the gateway, e.g. DATABASE_URL. End it with `stop`, which
 * removes its folder.
 */
export async function startStack(options: StackOptions = {}): Promise<Stack> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'astraml-stack-')));
  if (!options.env?.['DATABASE_URL']) await seedDataDir(dataDir);
  const token = newTokenText();
  const local = await startLocal({
    config: readConfig({ ASTRAML_DATA_DIR: dataDir, PORT: '0', LOG_LEVEL: 'warn', ...options.env }),
    token,
    runnerToken: newTokenText(),
    gpus: options.gpus,
    places: options.places,
    graceMs: options.graceMs ?? 2_000,
  });
  return {
    ...local,
    url: local.gateway.url,
    token,
    dataDir,
    async stop() {
      await local.stop();
      if (!options.dataDir) await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** Creates a project with this command. */
export async function createProject(client: Client, id: string, command: string[] | null = null): Promise<void> {
  const { createProject: created } = await client.request<{ createProject: { message?: string } }>(
    `mutation ($input: CreateProjectInput!) { createProject(input: $input) { ... on UserError { message } } }`,
    { input: { id, command } },
  );
  if (created.message !== undefined) throw new Error(created.message);
}

/** Returns a command that runs the script with the Node of the tests. */
export function script(source: string): string[] {
  return [process.execPath, '--input-type=module', '--eval', source];
}

export type Submitted = { id: string; number: number; state: string };

/** Submits a job; throws the message of a refusal. */
export async function submit(
  client: Client,
  projectId: string,
  spec: Record<string, unknown> = {},
  idempotencyKey?: string,
): Promise<Submitted> {
  const { submitJob } = await client.request<{ submitJob: { job?: Submitted; message?: string } }>(
    `mutation ($input: SubmitJobInput!) {
      submitJob(input: $input) { ... on SubmitJobPayload { job { id number state } } ... on UserError { message } }
    }`,
    { input: { spec: { projectId, model: 'm', dataset: 'd', ...spec }, idempotencyKey } },
  );
  if (!submitJob.job) throw new Error(submitJob.message);
  return submitJob.job;
}

export type Line = { seq: number; stream: string; text: string; attempt: number };

/** Returns the whole log from the live stream, once the job has ended. */
export async function followLog(client: Client, jobId: string): Promise<Line[]> {
  const lines: Line[] = [];
  const query = `subscription ($jobId: ID!, $after: String) {
    jobLogs(jobId: $jobId, after: $after) { lines { seq stream text attempt } endCursor done }
  }`;
  for await (const batch of client.follow<{ lines: Line[] }>(query, { jobId })) lines.push(...batch.lines);
  return lines;
}

/** Returns the state of a job and its reason. */
export async function jobState(
  client: Client,
  jobId: string,
): Promise<{
  state: string;
  stateReason: { code: string; message: string; hint: string | null; logExcerpt: string[] } | null;
}> {
  const { job } = await client.request<{ job: Awaited<ReturnType<typeof jobState>> }>(
    'query ($id: ID!) { job(id: $id) { state stateReason { code message hint logExcerpt } } }',
    { id: jobId },
    { repeatable: true },
  );
  return job;
}
