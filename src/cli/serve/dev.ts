// `astraml dev`: gateway and runner in one process with their data in a folder, until Ctrl-C.
// Prints the next steps to try.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { readConfig } from '../../config.ts';
import { newTokenText } from '../../project/token.ts';
import { usage } from '../failure.ts';
import { signalled } from '../signal.ts';
import { createExampleProject, startLocal, watchAddress } from './local.ts';

export type DevOptions = { port?: number; dataDir?: string; gpus?: number; places?: number };

const demoProject = 'p-demo';
const graceMs = 5_000;
const submitLine =
  'astraml submit --project p-demo --model bert-base --gpus 1 --dataset s3://bucket/dataset --batch-size 32 --epochs 5 --lr 3e-5';

/** Runs until a signal ends it; resolves with the exit code. */
export async function runDev(options: DevOptions): Promise<number> {
  loadDotEnv();
  const read = readConfig(process.env);
  const config = { ...read, port: options.port ?? read.port, dataDir: resolve(options.dataDir ?? read.dataDir) };
  makeDataDir(config.dataDir);
  const clientFile = join(config.dataDir, 'client.json');
  const runnerFile = join(config.dataDir, 'runner.json');
  const token = config.bootstrapToken ?? readToken(clientFile) ?? newTokenText();
  const runnerToken = readToken(runnerFile) ?? newTokenText();

  const ended = signalled();
  process.stderr.write('Starting the database, the gateway and a runner …\n');
  const say = (line: string) => process.stderr.write(`${line}\n`);
  const local = await startLocal({
    config,
    token,
    runnerToken,
    gpus: options.gpus,
    places: options.places,
    graceMs,
    onAttempt(event, { job, attemptNumber }, url) {
      say(`${job.projectId}/${job.number} ${job.name}: attempt ${attemptNumber} ${event}`);
      if (event === 'started') say(`  ${watchAddress(url, job.id, token)}`);
    },
    onTrouble: (error) => say(`runner: ${error instanceof Error ? error.message : String(error)}`),
  });
  const { client, gateway } = local;
  try {
    const { viewer } = await client.request<{ viewer: { projects: { totalCount: number } } }>(
      '{ viewer { projects { totalCount } } }',
    );
    if (viewer.projects.totalCount === 0) await createExampleProject(client, demoProject);
    writePrivately(clientFile, { url: gateway.url, token, project: demoProject });
    writePrivately(runnerFile, { token: runnerToken });
    process.stdout.write(`GraphiQL   ${gateway.url}/graphql#token=${token}\n`);
    process.stdout.write(`Watch      ${watchAddress(gateway.url, '<id of a job>', token)}\n`);
    say(`Data       ${relative(process.cwd(), config.dataDir) || '.'}`);
    say(`\nIn another terminal, in this folder:\n\n  npx ${submitLine}\n  npx astraml logs -f\n\nCtrl-C ends it.`);
    await ended;
    say('Stopping …');
  } finally {
    await local.stop();
  }
  return 0;
}

function makeDataDir(dataDir: string): void {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw usage(
      `The data folder ${dataDir} cannot be used: ${why}.`,
      'Name another with --data-dir or ASTRAML_DATA_DIR.',
    );
  }
}

function loadDotEnv(): void {
  try {
    process.loadEnvFile('.env');
  } catch {
    // no .env file
  }
}

function readToken(file: string): string | null {
  try {
    const { token } = JSON.parse(readFileSync(file, 'utf8')) as { token?: unknown };
    return typeof token === 'string' ? token : null;
  } catch {
    return null;
  }
}

function writePrivately(file: string, content: object): void {
  writeFileSync(file, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 });
}
