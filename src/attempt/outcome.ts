// Decides what the end of an attempt means: its reason, its message for users, and whether and when
// the job runs again. Pure.
import type { Job } from '../job/job.ts';
import type { JobState, ReasonCode, StateReason } from '../job/state.ts';
import type { RecordOf } from '../protocol/record.ts';

/** The reported end of an attempt, with facts that explain it. */
export type End = Pick<RecordOf<'finished'>, 'outcome' | 'exitCode' | 'signal' | 'message'> & {
  /** The kernel killed a process of the attempt for want of memory while it ran. */
  oomKilled: boolean;
  /** Seconds that the attempt ran. */
  seconds: number;
  /** Last log lines of the attempt, oldest first, without escape sequences. */
  lines: readonly string[];
};

/** The facts of an ended attempt that the next decision needs. */
export type Ended = { runnerId: string; reasonCode: ReasonCode | null; exitCode: number | null };
export type Judged = { state: JobState; reason: StateReason };

/** Number of last log lines that are searched for a GPU that ran out of memory. */
export const searchedLines = 200;
/** `EX_TEMPFAIL` of sysexits.h: with this exit code the script says that it may work later. */
const tempFail = 75;
const maxTempFails = 5;
/**
 * Ends that are the runner's fault. They cost the job no retry, until five in a row suggest that
 * the job is the cause.
 */
const runnerFaults: readonly (ReasonCode | null)[] = ['RUNNER_LOST', 'RUNNER_DRAINED'];
const maxRunnerFaultsInARow = 5;
const countedReasons: readonly (ReasonCode | null)[] = [
  'EXIT_CODE',
  'SIGNAL',
  'OUT_OF_MEMORY',
  'CUDA_OUT_OF_MEMORY',
  'START_TIMEOUT',
];
const [firstDelayMs, longestDelayMs] = [10_000, 600_000];

/**
 * Classifies the end of an attempt that was not cancelled: its state, and the reason with a message
 * for users.
 */
export function judgeEnd(end: End, job: Pick<Job, 'resolved' | 'defaultsVersion'>): Judged {
  const after = `after ${end.seconds} s`;
  const failed = (code: ReasonCode, message: string, hint: string | null = null): Judged => {
    return { state: 'FAILED', reason: { code, message, hint } };
  };
  switch (end.outcome) {
    case 'TIMEOUT': {
      const hint = 'Raise timeoutSeconds, or make the job shorter.';
      return { state: 'TIMED_OUT', reason: { code: 'TIMEOUT', message: `Timed out ${after}.`, hint } };
    }
    case 'NOT_STARTED': {
      const hint = 'Check that the command exists on the runner and may be executed.';
      return failed('COMMAND_NOT_STARTED', `The command could not be started: ${end.message}`, hint);
    }
    case 'DRAINED':
    case 'CANCELLED':
      return failed('RUNNER_DRAINED', 'The runner stopped and handed the job back.', handedBack);
    case 'CUT_OFF': {
      const message = `The runner lost the gateway and stopped the job ${after}, as on_cut asks.`;
      return failed('RUNNER_LOST', message, 'Look at the network between the runner and the gateway.');
    }
    case 'SIGNALLED':
    case 'EXITED':
      break;
  }
  if (end.exitCode === 0)
    return { state: 'SUCCEEDED', reason: { code: 'COMPLETED', message: `Exit code 0 ${after}.` } };
  const how = end.signal === null ? `Exit code ${end.exitCode}` : `Ended by ${end.signal}`;
  // A shell exits with 137 when SIGKILL ended its child.
  if (end.oomKilled && (end.signal === 'SIGKILL' || end.exitCode === 137)) {
    const hint = 'Lower what the job keeps in memory, e.g. the workers of its data loader, or use a larger machine.';
    return failed('OUT_OF_MEMORY', `The host ran out of memory: ${lower(how)} ${after}.`, hint);
  }
  const cuda = end.exitCode === tempFail ? undefined : end.lines.findLast((line) => cudaPattern.test(line));
  if (cuda !== undefined) return failed('CUDA_OUT_OF_MEMORY', cudaMessage(cuda, job), cudaHint(job));
  if (end.exitCode === tempFail)
    return failed('EXIT_CODE', `${how} ${after}.`, 'By this code the command asks to be tried again.');
  if (end.signal === null) return failed('EXIT_CODE', `${how} ${after}.`, lookHint);
  return failed('SIGNAL', `${how} ${after}.`, end.signal === 'SIGKILL' ? killedHint : lookHint);
}

const handedBack = 'It costs the job none of its retries: another runner, or this one when it is back, takes it.';
const lookHint = 'The last lines of its log say more.';
const killedHint = 'Nobody here sent it: look who did on the runner, e.g. its kernel for want of memory.';

const lower = (text: string) => text.charAt(0).toLowerCase() + text.slice(1);

const cudaPattern = /CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|(?<!java\.lang\.)\bOutOfMemoryError\b/;

/**
 * Returns e.g. `CUDA out of memory: tried to allocate 2.00 GiB on GPU 0 (batch_size 32 from DEFAULT
 * v2.1).`
 */
function cudaMessage(line: string, { resolved, defaultsVersion }: Pick<Job, 'resolved' | 'defaultsVersion'>): string {
  const size = /tried to allocate ([\d.]+ ?[KMGT]?i?B)/i.exec(line)?.[1];
  const gpu = /\bGPU (\d+)/.exec(line)?.[1];
  const batch = resolved.find(({ path }) => path === 'hyperparams.batch_size');
  const version = batch && ['DEFAULT', 'PLATFORM'].includes(batch.source) ? ` ${defaultsVersion}` : '';
  const what = size ? `: tried to allocate ${size}${gpu ? ` on GPU ${gpu}` : ''}` : '';
  return `CUDA out of memory${what}${batch ? ` (batch_size ${String(batch.value)} from ${batch.source}${version})` : ''}.`;
}

function cudaHint({ resolved }: Pick<Job, 'resolved'>): string {
  const valueOf = (path: string) => Number(resolved.find((value) => value.path === `hyperparams.${path}`)?.value ?? 1);
  const batch = valueOf('batch_size');
  if (!(batch >= 2)) return 'Use a GPU with more memory, or a smaller model.';
  const steps = 2 * valueOf('gradient_accumulation_steps');
  return `Lower the batch size: --set batch_size=${Math.floor(batch / 2)} --set gradient_accumulation_steps=${steps}`;
}

export type Retry = {
  /** Milliseconds until the job may run again; 0 for at once. */
  delayMs: number;
  /** Text for users, e.g. `retry 1 of 2`; null when the end costs the job no retry. */
  which: string | null;
};

/**
 * Decides whether the job runs again after the last of these attempts (oldest first); null when it
 * does not. `random` is 0…1. Exit codes, signals, lack of memory and slow starts count against
 * `maxRetries`. Exit code 75 has five retries of its own. Faults of the runner cost none.
 */
export function decideRetry(attempts: readonly Ended[], maxRetries: number, random: number): Retry | null {
  const last = attempts.at(-1);
  if (!last?.reasonCode) return null;
  if (isRunnerFault(last)) {
    const inARow = attempts.length - 1 - attempts.findLastIndex((item) => !isRunnerFault(item));
    return inARow < maxRunnerFaultsInARow ? { delayMs: 0, which: null } : null;
  }
  const kind = kindOf(last);
  if (kind === null) return null;
  const used = attempts.filter((item) => kindOf(item) === kind).length - 1;
  const allowed = kind === 'tempFail' ? maxTempFails : maxRetries;
  return used < allowed ? { delayMs: backoff(used, random), which: `retry ${used + 1} of ${allowed}` } : null;
}

const isRunnerFault = ({ reasonCode }: Ended) => runnerFaults.includes(reasonCode);

function kindOf({ reasonCode, exitCode }: Ended): 'tempFail' | 'counted' | null {
  if (reasonCode === 'EXIT_CODE' && exitCode === tempFail) return 'tempFail';
  return countedReasons.includes(reasonCode) ? 'counted' : null;
}

/**
 * Pause in milliseconds before the next attempt: 10 s, 20 s, 40 s …, each up to a fifth longer at
 * random, and at most 10 min.
 */
function backoff(earlier: number, random: number): number {
  return Math.round(Math.min(longestDelayMs, firstDelayMs * 2 ** earlier * (1 + random / 5)));
}

/**
 * Returns the runners on which the job failed twice in the same way. The job is placed on another
 * one while another matches. A runner that was drained is not to blame.
 */
export function runnersToLeaveOut(attempts: readonly Ended[]): string[] {
  const blamed = attempts.filter(({ reasonCode }) => reasonCode !== null && reasonCode !== 'RUNNER_DRAINED');
  const sorts = Map.groupBy(blamed, ({ runnerId, reasonCode }) => `${reasonCode} ${runnerId}`);
  return [...new Set([...sorts.values()].flatMap(([first, second]) => (first && second ? [first.runnerId] : [])))];
}
