// The runner: signs on, claims jobs for its free GPUs, and keeps one supervisor an attempt until it ends.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Bus, channels } from '../bus/bus.ts';
import { ApiError } from '../client/client.ts';
import {
  acknowledgement,
  type Assignment,
  claimAnswer,
  defaultPlaces,
  drainAnswer,
  type Gpu,
  lostAnswer,
  registerAnswer,
  type RegisterAnswer,
} from '../protocol/control.ts';
import type { Executor } from './executor.ts';
import { virtualModel } from './gpus.ts';
import { parseJson, type RunningAttempt, type WhenCut } from './attempt.ts';
import { answerMs, type Control, createControl } from './control.ts';
import { findSupervisors, spawnSupervisor } from './detached.ts';
import { describePlace } from './sentences.ts';
import { endStray, findStrays } from './strays.ts';
import { Supervisor } from './supervisor.ts';
import { type ProjectUsers, userFor } from './user.ts';

export type RunnerOptions = {
  /** Address of the gateway, and a token of scope RUNNER. */
  url: string;
  token: string;
  /**
   * Where attempts run: in this process, over this bus; or each in a process of its own that outlives this one, over the
   * Redis that is named here or, for null, the one that the gateway names. Those have an executor of their own, with
   * control groups in this folder; null for none.
   */
  attempts:
    | { in: 'process'; bus: Pick<Bus, 'append' | 'subscribe'> }
    | { in: 'own process'; redisUrl: string | null; groupFolder: string | null };
  executor: Executor;
  name: string;
  version: string;
  labels: string[];
  gpus: Gpu[];
  /** Attempts that run at once; by default `defaultPlaces`. */
  places?: number;
  workDir: string;
  /** Between SIGTERM and SIGKILL. */
  graceMs: number;
  /** What attempts do when no gateway is heard. */
  whenCut?: WhenCut;
  /** Bytes of records that each attempt may keep on disk while no gateway takes them. */
  spoolBytes?: number;
  /** The users of projects; without, all jobs run as the user of this process. */
  users?: ProjectUsers | undefined;
  /** Environment of the host, of which jobs inherit a little. */
  host: Readonly<Record<string, string | undefined>>;
  onAttempt?: (event: 'started' | 'ended', assignment: Assignment) => void;
  /** Failures that the runner survives, e.g. a gateway that is away. */
  onTrouble?: (error: unknown) => void;
};

export type RunningRunner = {
  /** Claims nothing more, and resolves when the attempts that run have ended by themselves. */
  drain(): Promise<void>;
  /** Stops claiming, ends the attempts (their jobs queue again), and returns when all is acknowledged or the time is over. */
  stop(deadlineMs: number): Promise<void>;
  /** Resolves when the gateway refuses the runner's token, which was revoked or is over: it claims nothing more. */
  readonly refused: Promise<ApiError>;
};

const waitSeconds = 20;
const retryMs = 1_000;
/** What an earlier life left has so long to end before anything is begun beside it. */
const straysMs = 5_000;
/** What could not be acknowledged in the time to stop is given up, and then its processes have this long to go. */
const abandonMs = 2_000;

/** Starts a runner; resolves once it has signed on. Rejects when its token is refused. */
export async function startRunner(options: RunnerOptions): Promise<RunningRunner> {
  const ending = new AbortController();
  const running = new Map<string, RunningAttempt>();
  /** Of what runs: when it is over and nothing is left of it. */
  const ends = new Set<Promise<void>>();
  const free = new Set(options.gpus.map((gpu) => gpu.index));
  const places = placesOf(options);
  let freed = () => {};
  const refusal = Promise.withResolvers<ApiError>();

  const control = createControl(options.url, options.token);
  const adopted = options.attempts.in === 'process' ? [] : await findSupervisors();
  const strays = await findStrays(options, new Set(adopted.map(({ attemptId }) => attemptId)));
  const allEnded = Promise.all(strays.map(({ attempt }) => attempt.done));
  await Promise.race([allEnded, sleep(straysMs, undefined, { ref: false })]);
  const heard = (message: string) => {
    const parsed = acknowledgement.safeParse(parseJson(message));
    // Anything else is a message without content: every attempt asks what there is to know.
    if (parsed.success) running.get(parsed.data.attemptId)?.acknowledge(parsed.data);
    else for (const attempt of running.values()) attempt.ask();
  };
  const listen = async (runnerId: string) =>
    options.attempts.in === 'process'
      ? options.attempts.bus.subscribe(channels.runner(runnerId), heard)
      : async () => {};
  const bootId = randomUUID();
  let signedOn = await register(options, control, bootId, ending.signal);
  let unsubscribe = await listen(signedOn.runnerId);

  /** The gateway need not wait for the lease: nothing runs any more. When it cannot be told, the lease lapses. */
  const tellLost = async (attemptId: string) => {
    const { leaseSeconds, runnerId } = signedOn;
    const deadline = performance.now() + leaseSeconds * 1000;
    while (!ending.signal.aborted && performance.now() < deadline) {
      try {
        await control.call(`attempts/${attemptId}/lost`, { runnerId }, lostAnswer, { signal: ending.signal });
        return;
      } catch (error) {
        if (!(error instanceof ApiError && error.retryable)) return options.onTrouble?.(error);
        await sleep(retryMs, undefined, { signal: ending.signal }).catch(() => {});
      }
    }
  };
  /** A gateway with a new database does not know us: there we are another runner. */
  const registerAgain = async () => {
    const before = unsubscribe;
    signedOn = await register(options, control, bootId, ending.signal);
    unsubscribe = await listen(signedOn.runnerId);
    await before();
  };

  // A supervisor that was killed leaves processes: the GPUs are free, and the job may run again, when these are gone.
  const keep = (
    attempt: RunningAttempt,
    assignment: Assignment | null,
    left = attempt.done.then(() => endStray(options, attempt.attemptId)),
  ) => {
    for (const index of attempt.gpus) free.delete(index);
    running.set(attempt.attemptId, attempt);
    if (assignment) options.onAttempt?.('started', assignment);
    const end = left
      .then((isLost) => void (isLost && tellLost(attempt.attemptId)))
      .catch((error: unknown) => options.onTrouble?.(error))
      .then(() => {
        running.delete(attempt.attemptId);
        for (const index of attempt.gpus) free.add(index);
        if (assignment) options.onAttempt?.('ended', assignment);
        freed();
        ends.delete(end);
      });
    ends.add(end);
  };
  for (const attempt of adopted) keep(attempt, null);
  for (const { attempt, left } of strays) keep(attempt, null, left);

  const claimAll = async () => {
    const { signal } = ending;
    let requestId = randomUUID();
    while (!signal.aborted) {
      if (running.size >= places) {
        await new Promise<void>((resolve) => {
          freed = () => {
            signal.removeEventListener('abort', freed);
            resolve();
          };
          signal.addEventListener('abort', freed);
        });
        continue;
      }
      // A claim that waits knows only the GPUs that were free when it began: one that is freed meanwhile begins another.
      const changed = new AbortController();
      freed = () => changed.abort();
      try {
        const request = { runnerId: signedOn.runnerId, freeGpus: [...free], requestId, waitSeconds };
        const { assignment } = await control.call('claim', request, claimAnswer, {
          timeoutMs: waitSeconds * 1000 + answerMs,
          signal: AbortSignal.any([signal, changed.signal]),
        });
        requestId = randomUUID();
        if (assignment) keep(begin(options, control, signedOn, assignment), assignment);
      } catch (error) {
        if (signal.aborted) return;
        if (changed.signal.aborted) continue; // with the same request id: an answer that was lost comes again
        options.onTrouble?.(error);
        // Nobody gives a token back: what runs may end, another claim is no use.
        if (error instanceof ApiError && isRefusal(error)) return refusal.resolve(error);
        if (error instanceof ApiError && error.httpStatus === 404)
          await registerAgain().catch((failure: unknown) => options.onTrouble?.(failure));
        await sleep(retryMs, undefined, { signal }).catch(() => {});
      }
    }
  };
  const claiming = claimAll();

  const allDone = () => Promise.all(ends);
  return {
    async drain() {
      ending.abort();
      await claiming;
      // Only for those who look: it claims nothing more, whether the gateway hears this or not.
      void control.call('drain', { runnerId: signedOn.runnerId, bootId }, drainAnswer).catch(() => {});
      while (ends.size > 0) await allDone();
      await unsubscribe();
    },
    async stop(deadlineMs) {
      ending.abort();
      await claiming;
      for (const attempt of running.values()) attempt.stop('DRAINED', Math.min(options.graceMs, deadlineMs / 2));
      const all = allDone();
      await Promise.race([all, sleep(deadlineMs, undefined, { ref: false })]);
      for (const attempt of running.values()) attempt.abandon(0);
      await Promise.race([all, sleep(abandonMs, undefined, { ref: false })]);
      await unsubscribe();
    },
    refused: refusal.promise,
  };
}

/** Whether the gateway does not take the token, or not for this. */
export function isRefusal({ httpStatus }: ApiError): boolean {
  return httpStatus === 401 || httpStatus === 403;
}

/** Starts an attempt, here or in a process of its own. */
function begin(
  options: RunnerOptions,
  control: Control,
  signedOn: RegisterAnswer,
  assignment: Assignment,
): RunningAttempt {
  const { attempts, executor, workDir, url, token, graceMs, whenCut = 'continue', spoolBytes } = options;
  const { host, onTrouble } = options;
  const virtualGpus = options.gpus.every((gpu) => gpu.model === virtualModel);
  const { user, refusal } = userFor(options.users, assignment, virtualGpus);
  const place = describePlace(options, assignment, virtualGpus);
  const heartbeatMs = signedOn.heartbeatSeconds * 1000;
  const leaseMs = signedOn.leaseSeconds * 1000;
  if (attempts.in === 'own process') {
    const { runnerId } = signedOn;
    const redisUrl = attempts.redisUrl ?? signedOn.redisUrl ?? '';
    return spawnSupervisor(assignment, {
      url,
      token,
      redisUrl,
      runnerId,
      workDir,
      place,
      virtualGpus,
      groupFolder: attempts.groupFolder,
      user,
      refusal,
      heartbeatMs,
      leaseMs,
      whenCut,
      graceMs,
      spoolBytes,
    });
  }
  return new Supervisor({
    assignment,
    executor,
    workDir,
    gatewayUrl: url,
    place,
    virtualGpus,
    append: (stream, batch) => attempts.bus.append(stream, batch),
    renew: (attemptId, leaseToken) => control.call(`attempts/${attemptId}/renew`, { leaseToken }, acknowledgement),
    heartbeatMs,
    leaseMs,
    whenCut,
    graceMs,
    spoolBytes,
    host,
    user,
    refusal,
    onTrouble,
  });
}

function placesOf({ places, gpus }: RunnerOptions): number {
  return places ?? defaultPlaces(gpus.length);
}

async function register(
  options: RunnerOptions,
  control: Control,
  bootId: string,
  signal: AbortSignal,
): Promise<RegisterAnswer> {
  const { name, version, labels, gpus, attempts } = options;
  for (;;) {
    try {
      const request = { name, version, labels, gpus, places: placesOf(options), bootId };
      const answer = await control.call('register', request, registerAnswer, { signal });
      if (attempts.in === 'process' || attempts.redisUrl || answer.redisUrl) return answer;
      throw new ApiError('The gateway names no Redis: it serves runners in its own process only.', {
        code: 'INVALID_STATE',
        hint: 'Start the gateway with REDIS_URL, or give this runner one.',
      });
    } catch (error) {
      if (signal.aborted || (error instanceof ApiError && !error.retryable)) throw error;
      options.onTrouble?.(error);
      await sleep(retryMs, undefined, { signal });
    }
  }
}
