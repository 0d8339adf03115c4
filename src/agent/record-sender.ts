// The uplink of one attempt: sends what the spool holds, one batch in flight, and keeps it until the gateway says that
// it is committed. A batch without an answer is sent again; without any for longer, the gateway is asked over HTTP.
import { type Bus, NotAppended, uplinkShard } from '../bus/bus.ts';
import { ApiError } from '../client/client.ts';
import type { Acknowledgement, Directive } from '../protocol/control.ts';
import { encodeBatch, maxBatchBytes, maxBatchRecords, type RunnerRecord } from '../protocol/record.ts';
import type { Spool } from './spool.ts';

export type UplinkOptions = {
  attemptId: string;
  leaseToken: string;
  spool: Spool;
  append: Bus['append'];
  /** Asks the gateway over HTTP; rejects when it cannot be reached. */
  renew(): Promise<Acknowledgement>;
  /** Without an acknowledgement for so long, it says that it is alive, and then asks over HTTP. */
  heartbeatMs: number;
  /** Pause before a batch without an answer is sent again, the first time: a second, less in tests. */
  resendMs?: number;
  onDirective(directive: Directive): void;
  /** The gateway's database is older than what it acknowledged: as many records as this are in neither any more. */
  onRestored?: (lost: number) => void;
  /** A failure that it survives; told once, until a batch was answered. */
  onTrouble?: (error: unknown) => void;
};

/** Records wait so long for others to come along; the first of an idle attempt goes at once. */
const gatherMs = 100;
const defaultResendMs = 1_000;
/** In first pauses. Each send that nobody took stands on its stream as a copy: 25 in ten minutes, 6 MiB an attempt. */
const longestPause = 30;
/** A bus or a gateway that neither takes nor refuses is given up for this time. */
const patienceMs = 10_000;
/** An attempt that the gateway does not know for so many heartbeats is nobody's: its job may run elsewhere by then. */
const unknownBeats = 3;
/** A gateway that does not know our token may still take what the bus brings: only after so long it is given up. */
const refusedMs = 3_600_000;
/** An acknowledgement that is later than so many sends says nothing that we do not know. */
const rememberedSends = 64;

export class RecordSender {
  readonly #options: UplinkOptions;
  #committed = 0;
  /** Up to here the spool has given its records away. */
  #released = 0;
  /** How often the gateway's database came back older. */
  #restores = 0;
  /** Last number before what the newest send holds. */
  #sentAfter = 0;
  #acknowledgements = 0;
  #heardAt = performance.now();
  #leasedAt = -Infinity;
  #send = 0;
  /** When each of the last sends began, by its number. */
  readonly #sentAt = new Map<number, number>();
  #ended = false;
  readonly #wakers = new Set<() => void>();
  #asked = false;
  /** Since when the gateway says that there is no such attempt, or no such token; null while it does not. */
  #unknownSince: number | null = null;
  /** A batch took not all that there was: the next follows at once. */
  #backlog = false;
  #troubled = false;
  readonly #running: Promise<void>;

  constructor(options: UplinkOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  /**
   * Since when the lease runs at the latest, by `performance.now()`: the beginning of the newest send that was
   * acknowledged; -Infinity before the first, since nobody knows how long the answer of the claim was under way.
   */
  get leasedAt(): number {
    return this.#leasedAt;
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
    this.#unknownSince = null;
    this.#heardAt = performance.now();
    const { send, committed } = acknowledgement;
    // Whoever answers our newest send had all that was committed before it, unless its database came back older.
    if (send === this.#send && committed < this.#sentAfter) this.#goBack(committed);
    this.#leasedAt = Math.max(this.#leasedAt, this.#sentAt.get(acknowledgement.send ?? 0) ?? 0);
    this.#committed = Math.max(this.#committed, committed);
    for (const directive of acknowledgement.directives) this.#options.onDirective(directive);
    this.#wake();
  }

  /** A backup was restored: on from what it has. What the spool gave away meanwhile becomes a gap. */
  #goBack(committed: number): void {
    this.#restores++;
    this.#committed = committed;
    this.#sentAfter = committed; // the same send may be answered again
    this.#options.onRestored?.(Math.max(0, this.#released - committed));
  }

  /** Resolves when everything in the spool is committed, or the uplink was ended. */
  async drained(): Promise<void> {
    const isDone = () => this.#committed >= this.#options.spool.last;
    while (!this.#ended && !isDone()) await this.#sleep(patienceMs, isDone);
  }

  /** Stops sending. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#wake();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { spool, heartbeatMs, resendMs = defaultResendMs } = this.#options;
    let sentAt = -Infinity;
    while (!this.#ended) {
      const news = spool.last > this.#committed;
      const pauseMs = this.#backlog ? 0 : news || this.#asked ? gatherMs : heartbeatMs;
      const dueInMs = sentAt + pauseMs - performance.now();
      if (dueInMs > 0) {
        await this.#sleep(dueInMs, () => !news && (spool.last > this.#committed || this.#asked));
        continue;
      }
      this.#asked = false;
      sentAt = performance.now();
      try {
        await this.#sendOne();
      } catch (error) {
        this.#report(error);
        await this.#sleep(resendMs);
      }
    }
  }

  /**
   * Sends one batch, or a heartbeat, and waits for its acknowledgement. Sent again after 1, 2, 4 … 30 s, also when nobody
   * knows whether the bus took it; one that it certainly did not take is offered again each second.
   */
  async #sendOne(): Promise<void> {
    const { attemptId, leaseToken, spool, append, resendMs = defaultResendMs } = this.#options;
    await spool.release(this.#committed);
    this.#released = Math.max(this.#released, this.#committed);
    const { first, last, records } = await this.#read();
    this.#backlog = last < spool.last;
    const send = ++this.#send;
    this.#sentAfter = first - 1;
    this.#sentAt.set(send, performance.now()).delete(send - rememberedSends);
    const batch = encodeBatch({ version: 1, attemptId, leaseToken, first, send, records });
    const heard = this.#acknowledgements;
    // Only one that says more than we knew answers a batch. Another is late, for a batch that was sent twice: taking it
    // for the answer would send this one twice as well, and so on.
    const restores = this.#restores;
    const isAnswered = () =>
      this.#restores !== restores || (records.length > 0 ? this.#committed >= first : this.#acknowledgements !== heard);
    for (let pauseMs = resendMs, dueAt = 0; !this.#ended && !isAnswered();) {
      if (performance.now() >= dueAt) {
        let mayStand = true;
        await this.#inTime(append(uplinkShard(attemptId), batch)).catch((error: unknown) => {
          this.#report(error);
          mayStand = !(error instanceof NotAppended);
        });
        dueAt = performance.now() + (mayStand ? pauseMs : resendMs);
        if (mayStand) pauseMs = Math.min(2 * pauseMs, longestPause * resendMs);
      }
      await this.#sleep(Math.min(resendMs, dueAt - performance.now()), isAnswered);
      if (!isAnswered()) await this.#askOverHttp().catch((error: unknown) => this.#report(error));
    }
    this.#troubled = false;
  }

  /** The records to send next. */
  async #read(): Promise<{ first: number; last: number; records: RunnerRecord[] }> {
    const [committed, lost] = [this.#committed, this.#released - this.#committed];
    if (lost <= 0) return this.#options.spool.read(committed, maxBatchRecords, maxBatchBytes);
    const gap = { type: 'gap', time: Date.now(), lines: lost, reason: 'RESTORED' } as const;
    return { first: committed + 1, last: this.#released, records: [gap] };
  }

  /** The lease goes on, and directives come, also when the bus is away. */
  async #askOverHttp(): Promise<void> {
    const { heartbeatMs, renew } = this.#options;
    if (this.#ended || performance.now() - this.#heardAt < heartbeatMs) return;
    const askedAt = performance.now();
    const committed = this.#committed;
    const answer = await this.#inTime(renew()).catch((error: unknown) => {
      this.#giveUpUnknown(error);
      throw error;
    });
    if (!answer) return;
    if (answer.committed < committed) this.#goBack(answer.committed);
    this.#leasedAt = Math.max(this.#leasedAt, askedAt);
    this.acknowledge(answer);
  }

  /** Who does not know the attempt never takes a record of it: its database is another one, or came back older. */
  #giveUpUnknown(error: unknown): void {
    const code = error instanceof ApiError ? error.code : '';
    if (code !== 'NOT_FOUND' && code !== 'UNAUTHENTICATED') return;
    this.#unknownSince ??= performance.now();
    const patienceMs = code === 'NOT_FOUND' ? unknownBeats * this.#options.heartbeatMs : refusedMs;
    if (performance.now() - this.#unknownSince >= patienceMs) this.#options.onDirective({ type: 'ABANDON' });
  }

  #report(error: unknown): void {
    if (!this.#troubled && !this.#ended) this.#options.onTrouble?.(error);
    this.#troubled = true;
  }

  /** What the promise resolves to; undefined when the uplink ends meanwhile. Rejects when it takes too long. */
  async #inTime<T>(promise: Promise<T>): Promise<T | undefined> {
    let settled = false;
    const done = promise.finally(() => {
      settled = true;
      this.#wake();
    });
    await Promise.race([done, this.#sleep(patienceMs, () => settled)]);
    if (settled) return done;
    if (!this.#ended) throw new Error(`No answer within ${patienceMs / 1000} s.`);
    return undefined;
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
