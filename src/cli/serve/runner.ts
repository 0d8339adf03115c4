// `astraml runner start`: runs jobs on this machine. Each attempt has a supervisor process of its
// own, so that a restart or kill of the runner costs no training. Events go to stderr, as JSON
// lines unless it is a terminal.
import { mkdirSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { findGroupFolder, withoutGroups } from '../../agent/control-group.ts';
import { enterWorkDir } from '../../agent/detached.ts';
import { findGpus } from '../../agent/gpus.ts';
import { processExecutor } from '../../agent/process.ts';
import { isRefusal, type RunningRunner, startRunner } from '../../agent/runner.ts';
import { leastSpoolBytes } from '../../agent/spool.ts';
import { ProjectUsers, readUidRange } from '../../agent/user.ts';
import { ApiError } from '../../client/client.ts';
import type { ValuesOf, Variable } from '../../variables.ts';
import { version } from '../../version.ts';
import { exitCodes, Failure, usage } from '../failure.ts';
import { cleanText } from '../text.ts';
import { takeSecrets } from './handover.ts';
import { runnerVariables, whatWhenCut } from './runner-variables.ts';

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

/**
 * Runs until a signal or a refused token drains it: it claims no new jobs, and running ones may
 * end. A second signal hands them back to the gateway at once.
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
  const gpus = await findGpus(options.gpus ?? env.ASTRAML_RUNNER_GPUS ?? undefined);
  const groupFolder = await findGroupFolder();
  if (process.platform === 'linux' && groupFolder === null) say('no control groups', { message: withoutGroups });
  const signals = listenForSignals();
  const runner = await startRunner({
    url: env.ASTRAML_URL.replace(/\/$/, ''),
    token: env.ASTRAML_RUNNER_TOKEN,
    attempts: { in: 'own process', redisUrl: env.REDIS_URL, groupFolder },
    executor: processExecutor(groupFolder),
    name,
    version,
    labels: options.label ?? env.ASTRAML_RUNNER_LABELS ?? [],
    gpus,
    places: options.places ?? env.ASTRAML_RUNNER_PLACES ?? undefined,
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

function readEnvironment(tokenFile?: string): ValuesOf<typeof runnerVariables> {
  const set = Object.entries({ ...process.env, ...takeSecrets() }).filter(([, value]) => value);
  const env: Record<string, string | undefined> = Object.fromEntries(set);
  if (tokenFile) env['ASTRAML_RUNNER_TOKEN'] = readTokenFile(tokenFile);
  const file = env['ASTRAML_RUNNER_TOKEN_FILE'];
  if (file) env['ASTRAML_RUNNER_TOKEN'] ??= readTokenFile(file);
  const problems: string[] = [];
  const values = Object.entries<Variable>(runnerVariables).map(([name, { schema, default: fallback }]) => {
    const parsed = schema.safeParse(env[name] ?? fallback);
    for (const { message } of parsed.error?.issues ?? []) problems.push(`  ${name}: ${message}`);
    return [name, parsed.data];
  });
  if (problems.length > 0) throw usage(`The runner cannot start:\n${problems.join('\n')}`);
  return Object.fromEntries(values) as ValuesOf<typeof runnerVariables>;
}

function readTokenFile(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw usage(`The token file ${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function usersOf(workDir: string, isolate: string | null, uids: string): ProjectUsers | undefined {
  if (isolate === null) return undefined;
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
