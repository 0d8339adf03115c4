// The uplink of one attempt: sends what the spool holds, one batch in flight, and keeps it until the gateway says that
// it is committed. A batch without an answer is sent again; without any for longer, the gateway is asked over HTTP.
import { type Bus, streamOf } from '../bus/bus.ts';
import type { Acknowledgement, Directive } from '../protocol/control.ts';
import { encodeBatch, maxBatchBytes, maxBatchRecords } from '../protocol/record.ts';
import type { Spool } from './spool.ts';

export type UplinkOptions = {
  attemptId: string;
  leaseToken: string;
  spool: Spool;
  append: Bus['append'];
  /** Asks the gateway over HTTP; rejects when it cannot be reached. */
  renew(): Promise<Acknowledgement>;
  heartbeatMs: number;
  onDirective(directive: Directive): void;
};

/** Records wait so long for others to come along; the first of an idle attempt goes at once. */
const gatherMs = 100;
const resendMs = 1_000;
const askAfterMs = 10_000;

export class Uplink {
  readonly #options: UplinkOptions;
  #committed = 0;
  #acknowledgements = 0;
  #ended = false;
  readonly #wakers = new Set<() => void>();
  #asked = false;
  readonly #running: Promise<void>;

  constructor(options: UplinkOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  /** There is something new in the spool. */
  notify(): void {
    this.#wake();
  }

  /** The gateway wants to be heard of: a heartbeat goes at once, and its acknowledgement says why. */
  ask(): void {
    this.#asked = true;
    this.#wake();
  }

  /** An acknowledgement came. */
  acknowledge(acknowledgement: Acknowledgement): void {
    if (acknowledgement.attemptId !== this.#options.attemptId || this.#ended) return;
    this.#acknowledgements++;
    this.#committed = Math.max(this.#committed, acknowledgement.committed);
    for (const directive of acknowledgement.directives) this.#options.onDirective(directive);
    this.#wake();
  }

  /** Resolves when everything in the spool is committed, or the uplink was ended. */
  async drained(): Promise<void> {
    while (!this.#ended && this.#committed < this.#options.spool.last) await this.#sleep(gatherMs);
  }

  /** Stops sending. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#wake();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { spool, heartbeatMs } = this.#options;
    let sentAt = -Infinity;
    while (!this.#ended) {
      const news = spool.last > this.#committed;
      const dueInMs =
        news || this.#asked ? sentAt + gatherMs - performance.now() : sentAt + heartbeatMs - performance.now();
      if (dueInMs > 0) {
        await this.#sleep(dueInMs, () => !news && (spool.last > this.#committed || this.#asked));
        continue;
      }
      this.#asked = false;
      sentAt = performance.now();
      try {
        await this.#sendOne();
      } catch {
        await this.#sleep(resendMs); // the bus or the gateway is away: the spool waits, the training does not
      }
    }
  }

  /** Sends one batch, or a heartbeat, and waits for its acknowledgement, sending it again every second. */
  async #sendOne(): Promise<void> {
    const { attemptId, leaseToken, spool, append, renew } = this.#options;
    await spool.release(this.#committed);
    const { first, records } = await spool.read(this.#committed, maxBatchRecords, maxBatchBytes);
    const batch = encodeBatch({ version: 1, attemptId, leaseToken, first, records });
    const heard = this.#acknowledgements;
    let askedAt = performance.now();
    while (!this.#ended && this.#acknowledgements === heard) {
      await append(streamOf(attemptId), batch);
      await this.#sleep(resendMs, () => this.#acknowledgements !== heard);
      if (this.#acknowledgements === heard && performance.now() - askedAt > askAfterMs) {
        askedAt = performance.now();
        this.acknowledge(await renew());
      }
    }
  }

  #wake(): void {
    for (const wake of this.#wakers) wake();
  }

  /** Until the time is over, the uplink ends, or it is woken and `until` says that it was for this. */
  #sleep(ms: number, until: () => boolean = () => false): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#wakers.delete(wake);
        resolve();
      };
      const wake = () => void ((this.#ended || until()) && done());
      const timer = setTimeout(done, ms);
      this.#wakers.add(wake);
      wake();
    });
  }
}
