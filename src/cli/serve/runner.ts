// `astraml runner start`: this machine takes jobs. Each attempt has a supervisor process of its own, so that a runner that
// is restarted or killed costs no training. Events go to stderr, one JSON object a line where nobody watches.
import { mkdirSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { z } from 'zod';
import { findGroupFolder, withoutGroups } from '../../agent/control-group.ts';
import { enterWorkDir } from '../../agent/detached.ts';
import { findGpus } from '../../agent/gpus.ts';
import { processExecutor } from '../../agent/process.ts';
import { isRefusal, type RunningRunner, startRunner } from '../../agent/runner.ts';
import { defaultSpoolBytes, leastSpoolBytes } from '../../agent/spool.ts';
import { ProjectUsers, readUidRange } from '../../agent/user.ts';
import { ApiError } from '../../client/client.ts';
import { oneOf, whole } from '../../config.ts';
import { maxPlaces } from '../../protocol/control.ts';
import { version } from '../../version.ts';
import { exitCodes, Failure, usage } from '../failure.ts';
import { takeSecrets } from './handover.ts';
import { cleanText } from '../text.ts';

export type RunnerStartOptions = {
  name?: string;
  label?: string[];
  gpus?: number;
  places?: number;
  workDir?: string;
  grace?: number;
  drainTimeout?: number;
  whenCut?: string;
  spoolBytes?: number;
  tokenFile?: string;
  isolate?: string;
};

const list = (text: string) =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');

const whatWhenCut = ['continue', 'stop'] as const;

/** The variables of a runner; flags win over them. */
const environment = z.object({
  ASTRAML_URL: z.url({ protocol: /^https?$/, error: 'must be the address of the gateway, e.g. https://ml.example' }),
  ASTRAML_RUNNER_TOKEN: z
    .string({ error: 'must be a token of scope RUNNER' })
    .min(32, 'must have at least 32 characters'),
  REDIS_URL: z
    .url({ protocol: /^rediss?$/, error: 'must be an address that begins with redis:// or rediss://' })
    .optional(),
  ASTRAML_RUNNER_NAME: z.string().max(100, 'must have at most 100 characters').optional(),
  ASTRAML_RUNNER_LABELS: z.string().transform(list).optional(),
  ASTRAML_RUNNER_GPUS: whole(0, 64).optional(),
  ASTRAML_RUNNER_PLACES: whole(1, maxPlaces).optional(),
  ASTRAML_RUNNER_WORK_DIR: z.string().min(1).default('/var/lib/astraml'),
  ASTRAML_RUNNER_GRACE_SECONDS: whole(0, 3_600).default(30),
  ASTRAML_RUNNER_DRAIN_SECONDS: whole(0).default(3_600),
  ASTRAML_RUNNER_WHEN_CUT: oneOf(whatWhenCut).default('continue'),
  ASTRAML_RUNNER_SPOOL_BYTES: whole(leastSpoolBytes).default(defaultSpoolBytes),
  ASTRAML_RUNNER_ISOLATE: oneOf(['users']).optional(),
  ASTRAML_RUNNER_UIDS: z.string().default('70000-99999'),
  // Read by each supervisor, which inherits the environment; here it is only checked.
  ASTRAML_RUNNER_REDACT_VARS: z
    .string()
    .regex(/^[\w*]+( *, *[\w*]+)*$/, 'must be names of variables, comma-separated, e.g. *_PASSWORD,*_TOKEN')
    .optional(),
});

/**
 * Runs until a signal drains it, or its token is refused: no new jobs, those that run may end. Another signal hands them
 * back at once.
 */
export async function runRunner(options: RunnerStartOptions): Promise<number> {
  const env = readEnvironment(options.tokenFile);
  const workDir = resolve(options.workDir ?? env.ASTRAML_RUNNER_WORK_DIR);
  try {
    mkdirSync(workDir, { recursive: true, mode: 0o700 });
    enterWorkDir(workDir);
  } catch (error) {
    throw usage(`The work folder ${workDir} cannot be used: ${error instanceof Error ? error.message : String(error)}`);
  }
  const users = usersOf(workDir, options.isolate ?? env.ASTRAML_RUNNER_ISOLATE, env.ASTRAML_RUNNER_UIDS);
  const graceMs = (options.grace ?? env.ASTRAML_RUNNER_GRACE_SECONDS) * 1000;
  const drainMs = (options.drainTimeout ?? env.ASTRAML_RUNNER_DRAIN_SECONDS) * 1000;
  const whenCut = whatWhenCut.find((what) => what === (options.whenCut ?? env.ASTRAML_RUNNER_WHEN_CUT));
  if (!whenCut) throw usage(`--when-cut takes continue or stop, got "${options.whenCut}".`);
  const spoolBytes = options.spoolBytes ?? env.ASTRAML_RUNNER_SPOOL_BYTES;
  if (spoolBytes < leastSpoolBytes)
    throw usage(`--spool-bytes takes ${leastSpoolBytes} (1 MiB) at least, got ${spoolBytes}.`);
  const name = options.name ?? env.ASTRAML_RUNNER_NAME ?? hostname();
  const gpus = await findGpus(options.gpus ?? env.ASTRAML_RUNNER_GPUS);
  const groupFolder = await findGroupFolder();
  if (process.platform === 'linux' && groupFolder === null) say('no control groups', { message: withoutGroups });
  const signals = listenForSignals();
  const runner = await startRunner({
    url: env.ASTRAML_URL.replace(/\/$/, ''),
    token: env.ASTRAML_RUNNER_TOKEN,
    attempts: { in: 'own process', redisUrl: env.REDIS_URL ?? null, groupFolder },
    executor: processExecutor(groupFolder),
    name,
    version,
    labels: options.label ?? env.ASTRAML_RUNNER_LABELS ?? [],
    gpus,
    places: options.places ?? env.ASTRAML_RUNNER_PLACES,
    workDir,
    graceMs,
    whenCut,
    spoolBytes,
    host: process.env,
    users,
    onAttempt: (event, { job, attemptId }) =>
      say(`attempt ${event}`, { attemptId, job: `${job.projectId}/${job.number}` }),
    onTrouble: (error) => say('trouble', { message: error instanceof Error ? error.message : String(error) }),
  }).catch(explain);
  say('ready', { name, gpus: gpus.map(({ model }) => model), workDir });
  const refused = await Promise.race([signals.first.then(() => null), runner.refused]);
  say('draining', refused ? { message: refused.message } : {});
  await drain(runner, refused ? signals.first : signals.second, drainMs, graceMs);
  return refused ? exitCodes.notAllowed : exitCodes.done;
}

async function drain(runner: RunningRunner, hurry: Promise<void>, drainMs: number, graceMs: number): Promise<void> {
  const late = new Promise<void>((done) => setTimeout(done, Math.min(drainMs, 2 ** 31 - 1)).unref());
  const drained = runner.drain();
  const inTime = await Promise.race([drained.then(() => true), hurry.then(() => false), late.then(() => false)]);
  if (!inTime) await runner.stop(graceMs + 10_000);
}

function readEnvironment(tokenFile?: string): z.output<typeof environment> {
  const set = Object.entries({ ...process.env, ...takeSecrets() }).filter(([, value]) => value);
  const env: Record<string, string | undefined> = Object.fromEntries(set);
  if (tokenFile) env['ASTRAML_RUNNER_TOKEN'] = readTokenFile(tokenFile);
  const file = env['ASTRAML_RUNNER_TOKEN_FILE'];
  if (file) env['ASTRAML_RUNNER_TOKEN'] ??= readTokenFile(file);
  const parsed = environment.safeParse(env);
  if (parsed.success) return parsed.data;
  throw usage(
    `The runner cannot start:\n${parsed.error.issues.map((issue) => `  ${issue.path.join('.')}: ${issue.message}`).join('\n')}`,
  );
}

function readTokenFile(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw usage(`The token file ${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function usersOf(workDir: string, isolate: string | undefined, uids: string): ProjectUsers | undefined {
  if (isolate === undefined) return undefined;
  if (isolate !== 'users') throw usage(`--isolate takes users, got "${isolate}".`);
  const range = readUidRange(uids);
  if (!range) throw usage(`ASTRAML_RUNNER_UIDS takes a range of numbers from 1000, e.g. 70000-99999, got "${uids}".`);
  try {
    return new ProjectUsers(workDir, range);
  } catch (error) {
    throw usage(
      `--isolate users: ${error instanceof Error ? error.message : String(error)}`,
      'Without it all jobs run as the user of the runner, and can reach each other.',
    );
  }
}

function explain(error: unknown): never {
  if (!(error instanceof ApiError)) throw error;
  throw new Failure(isRefusal(error) ? exitCodes.notAllowed : exitCodes.usage, error.message, error.hint);
}

function listenForSignals(): { first: Promise<void>; second: Promise<void> } {
  const heard: (() => void)[] = [];
  const next = () => new Promise<void>((done) => heard.push(done));
  const [first, second] = [next(), next()];
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => heard.shift()?.());
  return { first, second };
}

function say(event: string, details: Record<string, unknown>): void {
  const line = process.stderr.isTTY
    ? cleanText(`${event}  ${Object.values(details).map(String).join('  ')}`)
    : JSON.stringify({ time: new Date().toISOString(), event, ...details });
  process.stderr.write(`${line}\n`);
}
