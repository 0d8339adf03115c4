// The runner registers at the gateway, claims jobs for its free GPUs, and keeps one supervisor for
// each attempt until it ends.
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
   * Where attempts run. `process`: in this process, with this bus. `own process`: each in a process
   * of its own that outlives the runner, with the Redis named here or, for null, named by the
   * gateway, and with control groups in `groupFolder` (null for none).
   */
  attempts:
    | { in: 'process'; bus: Pick<Bus, 'append' | 'subscribe'> }
    | { in: 'own process'; redisUrl: string | null; groupFolder: string | null };
  executor: Executor;
  name: string;
  version: string;
  labels: string[];
  gpus: Gpu[];
  /** Number of attempts that run at once; `defaultPlaces` by default. */
  places?: number;
  workDir: string;
  /** Milliseconds between SIGTERM and SIGKILL. */
  graceMs: number;
  /** Reaction of attempts when no gateway can be reached. */
  whenCut?: WhenCut;
  /** Bytes of records that each attempt may keep on disk until a gateway has stored them. */
  spoolBytes?: number;
  /** Users of projects; without them all jobs run as the user of this process. */
  users?: ProjectUsers | undefined;
  /** Environment of the host; jobs inherit a few of its variables. */
  host: Readonly<Record<string, string | undefined>>;
  onAttempt?: (event: 'started' | 'ended', assignment: Assignment) => void;
  /** Failures that the runner survives, e.g. a gateway that is away. */
  onTrouble?: (error: unknown) => void;
};

export type RunningRunner = {
  /** Stops claiming, and resolves when the running attempts have ended by themselves. */
  drain(): Promise<void>;
  /**
   * Stops claiming and ends the attempts; their jobs queue again. Resolves when all is
   * acknowledged, or after `deadlineMs`.
   */
  stop(deadlineMs: number): Promise<void>;
  /**
   * Resolves when the gateway refuses the runner's token (revoked or expired). The runner then
   * claims nothing more.
   */
  readonly refused: Promise<ApiError>;
};

/** Seconds that a claim waits for a job. */
const waitSeconds = 20;
const retryMs = 1_000;
/** Time that processes of an earlier runner have to end before this one claims jobs. */
const straysMs = 5_000;
/** Time that processes have to end after `stop` gave up waiting for acknowledgements. */
const abandonMs = 2_000;

/** Starts a runner; resolves once it is registered. Rejects when its token is refused. */
export async function startRunner(options: RunnerOptions): Promise<RunningRunner> {
  const ending = new AbortController();
  const running = new Map<string, RunningAttempt>();
  /** For each attempt, resolves when it has ended and its processes are gone. */
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
  const receive = (message: string) => {
    const parsed = acknowledgement.safeParse(parseJson(message));
    // Any other message has no content: every attempt asks the gateway.
    if (parsed.success) running.get(parsed.data.attemptId)?.acknowledge(parsed.data);
    else for (const attempt of running.values()) attempt.ask();
  };
  const listen = async (runnerId: string) =>
    options.attempts.in === 'process'
      ? options.attempts.bus.subscribe(channels.runner(runnerId), receive)
      : async () => {};
  const bootId = randomUUID();
  let registration = await register(options, control, bootId, ending.signal);
  let unsubscribe = await listen(registration.runnerId);

  /**
   * Tells the gateway that none of the attempt's processes runs, so that it need not wait for the
   * lease. When it cannot be told, the lease expires.
   */
  const tellLost = async (attemptId: string) => {
    const { leaseSeconds, runnerId } = registration;
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
  /** A gateway with a new database does not know this runner: it registers as a new one. */
  const registerAgain = async () => {
    const before = unsubscribe;
    registration = await register(options, control, bootId, ending.signal);
    unsubscribe = await listen(registration.runnerId);
    await before();
  };

  // Keeps an attempt until it has ended. A killed supervisor leaves processes: its GPUs are freed,
  // and its job may run again, only when these are gone.
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
      // A waiting claim names the GPUs that were free when it began. When one is freed meanwhile, a
      // new claim begins.
      const changed = new AbortController();
      freed = () => changed.abort();
      try {
        const request = { runnerId: registration.runnerId, freeGpus: [...free], requestId, waitSeconds };
        const { assignment } = await control.call('claim', request, claimAnswer, {
          timeoutMs: waitSeconds * 1000 + answerMs,
          signal: AbortSignal.any([signal, changed.signal]),
        });
        requestId = randomUUID();
        if (assignment) keep(begin(options, control, registration, assignment), assignment);
      } catch (error) {
        if (signal.aborted) return;
        // the request id stays the same, so that a lost answer comes again
        if (changed.signal.aborted) continue;
        options.onTrouble?.(error);
        // A refused token stays refused: running attempts may end, but a further claim is useless.
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
      // Only for display: the runner claims nothing more, whether the gateway gets this or not.
      void control.call('drain', { runnerId: registration.runnerId, bootId }, drainAnswer).catch(() => {});
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

/** Whether the gateway refuses the token, altogether or for this request. */
export function isRefusal({ httpStatus }: ApiError): boolean {
  return httpStatus === 401 || httpStatus === 403;
}

/** Starts an attempt, in this process or in one of its own. */
function begin(
  options: RunnerOptions,
  control: Control,
  registration: RegisterAnswer,
  assignment: Assignment,
): RunningAttempt {
  const { attempts, executor, workDir, url, token, graceMs, whenCut = 'continue', spoolBytes } = options;
  const { host, onTrouble } = options;
  const virtualGpus = options.gpus.every((gpu) => gpu.model === virtualModel);
  const { user, refusal } = userFor(options.users, assignment, virtualGpus);
  const place = describePlace(options, assignment, virtualGpus);
  const heartbeatMs = registration.heartbeatSeconds * 1000;
  const leaseMs = registration.leaseSeconds * 1000;
  if (attempts.in === 'own process') {
    const { runnerId } = registration;
    const redisUrl = attempts.redisUrl ?? registration.redisUrl ?? '';
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
