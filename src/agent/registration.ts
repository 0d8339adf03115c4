// The registration of a runner at its gateway: the runner's id, and the messages that come for it.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { channels } from '../bus/bus.ts';
import { ApiError } from '../client/client.ts';
import { defaultPlaces, drainAnswer, lostAnswer, registerAnswer, type RegisterAnswer } from '../protocol/control.ts';
import type { Control } from './control.ts';
import type { RunnerOptions } from './runner-options.ts';

/** Pause before a request to a gateway that is away is tried again. */
export const retryMs = 1_000;

export class Registration {
  readonly #options: RunnerOptions;
  readonly #control: Control;
  readonly #receive: (message: string) => void;
  /** Aborted when the runner ends: nothing is tried again then. */
  readonly #ending: AbortSignal;
  readonly #bootId = randomUUID();
  #answer!: RegisterAnswer;
  #unsubscribe = async () => {};

  constructor(options: RunnerOptions, control: Control, receive: (message: string) => void, ending: AbortSignal) {
    this.#options = options;
    this.#control = control;
    this.#receive = receive;
    this.#ending = ending;
  }

  /** The gateway's answer to the newest registration. */
  get answer(): RegisterAnswer {
    return this.#answer;
  }

  /**
   * Registers the runner, and tries again while the gateway is away. A gateway with a new database
   * does not know this runner: a second call registers it as a new one.
   */
  async register(): Promise<void> {
    const before = this.#unsubscribe;
    this.#answer = await this.#request();
    const { attempts } = this.#options;
    this.#unsubscribe =
      attempts.in === 'process'
        ? await attempts.bus.subscribe(channels.runner(this.#answer.runnerId), this.#receive)
        : async () => {};
    await before();
  }

  /** Gets no more messages. */
  async close(): Promise<void> {
    await this.#unsubscribe();
  }

  /**
   * Tells the gateway that none of the attempt's processes runs, so that it need not wait for the
   * lease. When it cannot be told, the lease expires.
   */
  async reportLost(attemptId: string): Promise<void> {
    const { leaseSeconds, runnerId } = this.#answer;
    const deadline = performance.now() + leaseSeconds * 1000;
    const signal = this.#ending;
    while (!signal.aborted && performance.now() < deadline) {
      try {
        await this.#control.call(`attempts/${attemptId}/lost`, { runnerId }, lostAnswer, { signal });
        return;
      } catch (error) {
        if (!(error instanceof ApiError && error.retryable)) return this.#options.onTrouble?.(error);
        await sleep(retryMs, undefined, { signal }).catch(() => {});
      }
    }
  }

  /**
   * Tells the gateway that the runner claims nothing more. Only for display: it makes no difference
   * whether the gateway gets this.
   */
  reportDrain(): void {
    const request = { runnerId: this.#answer.runnerId, bootId: this.#bootId };
    void this.#control.call('drain', request, drainAnswer).catch(() => {});
  }

  async #request(): Promise<RegisterAnswer> {
    const { name, version, labels, gpus, attempts, onTrouble } = this.#options;
    const signal = this.#ending;
    for (;;) {
      try {
        const request = { name, version, labels, gpus, places: placesOf(this.#options), bootId: this.#bootId };
        const answer = await this.#control.call('register', request, registerAnswer, { signal });
        if (attempts.in === 'process' || attempts.redisUrl || answer.redisUrl) return answer;
        throw new ApiError('The gateway names no Redis: it serves runners in its own process only.', {
          code: 'INVALID_STATE',
          hint: 'Start the gateway with REDIS_URL, or give this runner one.',
        });
      } catch (error) {
        if (signal.aborted || (error instanceof ApiError && !error.retryable)) throw error;
        onTrouble?.(error);
        await sleep(retryMs, undefined, { signal });
      }
    }
  }
}

/** Number of attempts that the runner runs at once. */
export function placesOf({ places, gpus }: RunnerOptions): number {
  return places ?? defaultPlaces(gpus.length);
}
