// `astraml wait`: waits until jobs have ended; its exit code mirrors theirs.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cli } from '../cli.ts';
import { exitCodeOfState, exitCodes } from '../failure.ts';
import { toSeconds } from '../flags.ts';
import { jobAnswer, type JobLine } from './fields.ts';
import { findJob, readJobs } from './find.ts';
import { detachable, followState, noteState } from './follow.ts';
import { stateLine } from './outcome.ts';

type WaitOptions = { timeout?: string; any?: boolean };

/**
 * Waits for jobs. The exit code is that of the first named job that did not succeed; 101 when the
 * time ran out.
 */
export async function runWait(cli: Cli, { timeout, any = false }: WaitOptions, names: string[]): Promise<number> {
  const seconds = timeout === undefined ? null : toSeconds('--timeout', timeout);
  const jobs = await Promise.all(names.map((name) => findJob<JobLine>(cli, name, jobAnswer)));
  const ended = await detachable('\nDetached: the jobs go on.', (signal) =>
    waitFor(cli, jobs, { seconds, any, signal }),
  );
  if (ended.length === 0 && cli.out.json === null) return timedOut(cli, timeout);
  if (cli.out.json) await cli.out.printJson(ended);
  else for (const job of ended) await cli.out.print(stateLine(cli, job));
  if (ended.length < (any ? 1 : jobs.length)) return timedOut(cli, timeout);
  return ended.map(({ state }) => exitCodeOfState[state] ?? exitCodes.unexpected).find((code) => code !== 0) ?? 0;
}

/**
 * Returns the ended jobs, in the order in which they were named: all of them; with `any`, one or
 * more; fewer when the time ran out.
 */
async function waitFor(
  cli: Cli,
  jobs: JobLine[],
  { seconds, any, signal }: { seconds: number | null; any: boolean; signal: AbortSignal },
): Promise<JobLine[]> {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const ended = new Set<string>();
  const waits = jobs.map(async ({ id }) => {
    const last = await followState(cli, id, both, (now) => {
      if (!(now.state in exitCodeOfState)) noteState(cli, now);
    });
    if (last && last.state in exitCodeOfState) ended.add(id);
  });
  const time = seconds === null ? [] : [sleep(seconds * 1000, undefined, { signal: both }).catch(() => {})];
  await Promise.race([any ? Promise.race(waits) : Promise.all(waits), ...time]);
  stop.abort();
  await Promise.allSettled(waits);
  const done = jobs.filter(({ id }) => ended.has(id));
  return readJobs(cli, done, signal);
}

function timedOut(cli: Cli, timeout: string | undefined): number {
  cli.out.warn(`Not ended after ${timeout ?? ''}; the jobs go on.`);
  return exitCodes.waitedTooLong;
}
