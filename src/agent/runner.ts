// The runner registers at the gateway, claims jobs for its free GPUs, and keeps one supervisor for
// each attempt until it ends.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { ApiError } from '../client/client.ts';
import { acknowledgement, type Assignment, claimAnswer } from '../protocol/control.ts';
import { parseJson, type RunningAttempt } from './attempt.ts';
import { startAttempt } from './attempt-start.ts';
import { answerMs, type Control, createControl } from './control.ts';
import { findSupervisors } from './detached.ts';
import { placesOf, Registration, retryMs } from './registration.ts';
import type { RunnerOptions } from './runner-options.ts';
import { endStray, findStrays } from './strays.ts';

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
/** Time that processes of an earlier runner have to end before this one claims jobs. */
const straysMs = 5_000;
/** Time that processes have to end after `stop` gave up waiting for acknowledgements. */
const abandonMs = 2_000;

/** Starts a runner; resolves once it is registered. Rejects when its token is refused. */
export async function startRunner(options: RunnerOptions): Promise<RunningRunner> {
  const runner = new Runner(options);
  await runner.start();
  return runner;
}

/** Whether the gateway refuses the token, altogether or for this request. */
export function isRefusal({ httpStatus }: ApiError): boolean {
  return httpStatus === 401 || httpStatus === 403;
}

class Runner implements RunningRunner {
  readonly #options: RunnerOptions;
  readonly #control: Control;
  readonly #registration: Registration;
  /** Aborted when the runner claims nothing more. */
  readonly #ending = new AbortController();
  readonly #running = new Map<string, RunningAttempt>();
  /** For each attempt, resolves when it has ended and its processes are gone. */
  readonly #ends = new Set<Promise<void>>();
  /** Indexes of the GPUs that no attempt holds. */
  readonly #freeGpus: Set<number>;
  /** Ends the claim under way, which names too few GPUs now, or the wait for a place. */
  #onFreed = () => {};
  #claiming: Promise<void> = Promise.resolve();
  readonly #refusal = Promise.withResolvers<ApiError>();
  readonly refused = this.#refusal.promise;

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#control = createControl(options.url, options.token);
    this.#freeGpus = new Set(options.gpus.map((gpu) => gpu.index));
    const receive = (message: string) => this.#receive(message);
    this.#registration = new Registration(options, this.#control, receive, this.#ending.signal);
  }

  /** Takes over what an earlier process of the runner left, registers, and begins to claim. */
  async start(): Promise<void> {
    const adopted = this.#options.attempts.in === 'process' ? [] : await findSupervisors();
    const strays = await findStrays(this.#options, new Set(adopted.map(({ attemptId }) => attemptId)));
    const allEnded = Promise.all(strays.map(({ attempt }) => attempt.done));
    await Promise.race([allEnded, sleep(straysMs, undefined, { ref: false })]);
    await this.#registration.register();
    for (const attempt of adopted) this.#keep(attempt, null);
    for (const { attempt, gone } of strays) this.#keep(attempt, null, gone);
    this.#claiming = this.#claimAll();
  }

  async drain(): Promise<void> {
    this.#ending.abort();
    await this.#claiming;
    this.#registration.reportDrain();
    while (this.#ends.size > 0) await Promise.all(this.#ends);
    await this.#registration.close();
  }

  async stop(deadlineMs: number): Promise<void> {
    this.#ending.abort();
    await this.#claiming;
    const graceMs = Math.min(this.#options.graceMs, deadlineMs / 2);
    for (const attempt of this.#running.values()) attempt.stop('DRAINED', graceMs);
    const allEnded = Promise.all(this.#ends);
    await Promise.race([allEnded, sleep(deadlineMs, undefined, { ref: false })]);
    for (const attempt of this.#running.values()) attempt.abandon(0);
    await Promise.race([allEnded, sleep(abandonMs, undefined, { ref: false })]);
    await this.#registration.close();
  }

  #receive(message: string): void {
    const { data } = acknowledgement.safeParse(parseJson(message));
    // Any other message has no content: every attempt asks the gateway.
    if (data) this.#running.get(data.attemptId)?.acknowledge(data);
    else for (const attempt of this.#running.values()) attempt.ask();
  }

  async #claimAll(): Promise<void> {
    const { signal } = this.#ending;
    const places = placesOf(this.#options);
    let requestId = randomUUID();
    while (!signal.aborted) {
      // A waiting claim names the GPUs that were free when it began. When one is freed meanwhile, a
      // new claim begins.
      const freed = new AbortController();
      this.#onFreed = () => freed.abort();
      const changed = AbortSignal.any([signal, freed.signal]);
      if (this.#running.size >= places) {
        await once(changed, 'abort');
        continue;
      }
      try {
        const assignment = await this.#claim(requestId, changed);
        requestId = randomUUID();
        if (assignment)
          this.#keep(startAttempt(this.#options, this.#control, this.#registration.answer, assignment), assignment);
      } catch (error) {
        if (signal.aborted) return;
        // the request id stays the same, so that a lost answer comes again
        if (freed.signal.aborted) continue;
        this.#options.onTrouble?.(error);
        // A refused token stays refused: running attempts may end, but a further claim is useless.
        if (error instanceof ApiError && isRefusal(error)) return this.#refusal.resolve(error);
        if (error instanceof ApiError && error.httpStatus === 404)
          await this.#registration.register().catch((failure: unknown) => this.#options.onTrouble?.(failure));
        await sleep(retryMs, undefined, { signal }).catch(() => {});
      }
    }
  }

  async #claim(requestId: string, signal: AbortSignal): Promise<Assignment | null> {
    const { runnerId } = this.#registration.answer;
    const request = { runnerId, freeGpus: [...this.#freeGpus], requestId, waitSeconds };
    const timeoutMs = waitSeconds * 1000 + answerMs;
    return (await this.#control.call('claim', request, claimAnswer, { timeoutMs, signal })).assignment;
  }

  /**
   * Keeps an attempt until it has ended. A killed supervisor leaves processes: its GPUs are freed,
   * and its job may run again, only when these are gone.
   */
  #keep(
    attempt: RunningAttempt,
    assignment: Assignment | null,
    gone = attempt.done.then(() => endStray(this.#options, attempt.attemptId)),
  ): void {
    const { onAttempt, onTrouble } = this.#options;
    for (const index of attempt.gpus) this.#freeGpus.delete(index);
    this.#running.set(attempt.attemptId, attempt);
    if (assignment) onAttempt?.('started', assignment);
    const end = gone
      .then((isLost) => void (isLost && this.#registration.reportLost(attempt.attemptId)))
      .catch((error: unknown) => onTrouble?.(error))
      .then(() => {
        this.#running.delete(attempt.attemptId);
        for (const index of attempt.gpus) this.#freeGpus.add(index);
        if (assignment) onAttempt?.('ended', assignment);
        this.#onFreed();
        this.#ends.delete(end);
      });
    this.#ends.add(end);
  }
}
