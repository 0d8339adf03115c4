// The runner: signs on, claims jobs for its free GPUs, and keeps one supervisor an attempt until it ends.
import { randomUUID } from 'node:crypto';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { type Bus, channels } from '../bus/bus.ts';
import { ApiError } from '../client/client.ts';
import {
  acknowledgement,
  type Assignment,
  claimAnswer,
  type Gpu,
  registerAnswer,
  type RegisterAnswer,
} from '../protocol/control.ts';
import type { Executor } from './executor.ts';
import { virtualModel } from './gpus.ts';
import { Supervisor } from './supervisor.ts';

export type RunnerOptions = {
  /** Address of the gateway, and a token of scope RUNNER. */
  url: string;
  token: string;
  /** Takes records up to the gateway, and acknowledgements down. */
  bus: Pick<Bus, 'append' | 'subscribe'>;
  executor: Executor;
  name: string;
  version: string;
  labels: string[];
  gpus: Gpu[];
  workDir: string;
  /** Between SIGTERM and SIGKILL. */
  graceMs: number;
  /** Environment of the host, of which jobs inherit a little. */
  host: Readonly<Record<string, string | undefined>>;
  onAttempt?: (event: 'started' | 'ended', assignment: Assignment) => void;
  /** Failures that the runner survives, e.g. a gateway that is away. */
  onTrouble?: (error: unknown) => void;
};

export type RunningRunner = {
  /** Stops claiming, ends the attempts (their jobs queue again), and returns when all is acknowledged or the time is over. */
  stop(deadlineMs: number): Promise<void>;
};

const waitSeconds = 20;
const retryMs = 1_000;
/** A gateway that does not answer within this time is away. */
const answerMs = 10_000;
/** What could not be acknowledged in the time to stop is given up, and then its processes have this long to go. */
const abandonMs = 2_000;

/** What a supervisor writes of its attempt, for the next start of the runner. */
const attemptFile = z.object({ jobId: z.string(), attempt: z.string() });

/** Starts a runner; resolves once it has signed on. Rejects when its token is refused. */
export async function startRunner(options: RunnerOptions): Promise<RunningRunner> {
  const ending = new AbortController();
  const supervisors = new Map<string, Supervisor>();
  const free = new Set(options.gpus.map((gpu) => gpu.index));
  // A job without GPUs needs a place too: no more run at once than this.
  const maxAttempts = Math.max(4, 2 * options.gpus.length);
  let freed = () => {};

  await endStrays(options);
  const heard = (message: string) => {
    const told = acknowledgement.safeParse(parseJson(message));
    // Anything else is a nudge without content: every attempt asks what there is to know.
    if (told.success) supervisors.get(told.data.attemptId)?.acknowledge(told.data);
    else for (const supervisor of supervisors.values()) supervisor.ask();
  };
  const listen = (runnerId: string) => options.bus.subscribe(channels.runner(runnerId), heard);
  let signedOn = await register(options, ending.signal);
  let unsubscribe = await listen(signedOn.runnerId);

  /** A gateway with a new database does not know us: there we are another runner. */
  const registerAgain = async () => {
    const before = unsubscribe;
    signedOn = await register(options, ending.signal);
    unsubscribe = await listen(signedOn.runnerId);
    await before();
  };

  const begin = (assignment: Assignment) => {
    for (const index of assignment.gpus) free.delete(index);
    const supervisor = supervise(options, signedOn, assignment);
    supervisors.set(assignment.attemptId, supervisor);
    options.onAttempt?.('started', assignment);
    void supervisor.done
      .catch((error: unknown) => options.onTrouble?.(error))
      .then(() => {
        supervisors.delete(assignment.attemptId);
        for (const index of assignment.gpus) free.add(index);
        options.onAttempt?.('ended', assignment);
        freed();
      });
  };

  const claimAll = async () => {
    const { signal } = ending;
    let requestId = randomUUID();
    while (!signal.aborted) {
      if (supervisors.size >= maxAttempts) {
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
        const { assignment } = await call(
          options,
          'claim',
          request,
          claimAnswer,
          waitSeconds * 1000 + answerMs,
          AbortSignal.any([signal, changed.signal]),
        );
        requestId = randomUUID();
        if (assignment) begin(assignment);
      } catch (error) {
        if (signal.aborted) return;
        if (changed.signal.aborted) continue; // with the same request id: an answer that was lost comes again
        options.onTrouble?.(error);
        if (error instanceof ApiError && error.httpStatus === 404)
          await registerAgain().catch((failure: unknown) => options.onTrouble?.(failure));
        await sleep(retryMs, undefined, { signal }).catch(() => {});
      }
    }
  };
  const claiming = claimAll();

  return {
    async stop(deadlineMs) {
      ending.abort();
      await claiming;
      for (const supervisor of supervisors.values())
        supervisor.stop('DRAINED', Math.min(options.graceMs, deadlineMs / 2));
      const all = Promise.allSettled([...supervisors.values()].map((supervisor) => supervisor.done));
      await Promise.race([all, sleep(deadlineMs, undefined, { ref: false })]);
      for (const supervisor of supervisors.values()) supervisor.abandon(0);
      await Promise.race([all, sleep(abandonMs, undefined, { ref: false })]);
      await unsubscribe();
    },
  };
}

function supervise(options: RunnerOptions, signedOn: RegisterAnswer, assignment: Assignment): Supervisor {
  const { bus, executor, workDir, url, graceMs, host, onTrouble } = options;
  const virtualGpus = options.gpus.every((gpu) => gpu.model === virtualModel);
  return new Supervisor({
    assignment,
    executor,
    workDir,
    gatewayUrl: url,
    place: describePlace(options, assignment, virtualGpus),
    virtualGpus,
    append: (stream, batch) => bus.append(stream, batch),
    renew: (attemptId, leaseToken) =>
      call(options, `attempts/${attemptId}/renew`, { leaseToken }, acknowledgement, answerMs),
    heartbeatMs: signedOn.heartbeatSeconds * 1000,
    graceMs,
    host,
    onTrouble,
  });
}

function describePlace({ name, gpus }: RunnerOptions, assignment: Assignment, virtual: boolean): string {
  const slots = assignment.gpus.join(', ');
  if (slots === '') return `runner ${name}, without GPU`;
  if (virtual) return `runner ${name}, virtual slot ${slots} (this machine has no GPU: the slot only counts)`;
  const model = gpus.find((gpu) => gpu.index === assignment.gpus[0])?.model;
  return `runner ${name}, GPU ${slots} (${model})`;
}

async function register(options: RunnerOptions, signal: AbortSignal): Promise<RegisterAnswer> {
  const { name, version, labels, gpus } = options;
  for (;;) {
    try {
      return await call(
        options,
        'register',
        { name, version, labels, gpus, bootId: randomUUID() },
        registerAnswer,
        answerMs,
        signal,
      );
    } catch (error) {
      if (signal.aborted || (error instanceof ApiError && !error.retryable)) throw error;
      options.onTrouble?.(error);
      await sleep(retryMs, undefined, { signal });
    }
  }
}

async function call<Schema extends z.ZodType>(
  { url, token }: RunnerOptions,
  path: string,
  body: unknown,
  answer: Schema,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<z.output<Schema>> {
  let response: Response;
  let json: unknown;
  try {
    response = await fetch(`${url}/runner/v1/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
      signal: AbortSignal.any([AbortSignal.timeout(timeoutMs), ...(signal ? [signal] : [])]),
    });
    json = await response.json();
  } catch (cause) {
    throw new ApiError(`The gateway at ${url} cannot be reached.`, { code: 'UNREACHABLE', retryable: true, cause });
  }
  if (response.ok) return answer.parse(json);
  const [error] =
    (json as { errors?: { message: string; extensions?: { code?: string; retryable?: boolean } }[] }).errors ?? [];
  const { code = 'INTERNAL', retryable = response.status >= 500 } = error?.extensions ?? {};
  throw new ApiError(error?.message ?? `HTTP ${response.status}`, { code, retryable, httpStatus: response.status });
}

/** What an earlier life of this runner left running was lost with its pipes: it is ended, and its files go. */
async function endStrays({ executor, workDir, onTrouble }: RunnerOptions): Promise<void> {
  const folder = join(workDir, 'attempts');
  for (const name of await readdir(folder).catch(() => [])) {
    const file = join(folder, name, 'attempt.json');
    const text = await readFile(file, 'utf8').catch(() => '');
    const left = attemptFile.safeParse(parseJson(text)).data; // half a file: its command was not started
    const ended = left ? await executor.endStrays(left.jobId, left.attempt) : 0;
    if (ended > 0) onTrouble?.(new Error(`Ended ${ended} processes that an earlier start left of ${left?.jobId}.`));
    await rm(join(folder, name, 'spool'), { recursive: true, force: true });
    await rm(file, { force: true });
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
