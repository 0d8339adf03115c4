// Sends the records of one attempt from its spool, one batch in flight, and keeps them until the
// gateway acknowledges that they are stored. A batch without an acknowledgement is sent again;
// after longer silence the gateway is asked over HTTP.
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
  /**
   * Time without an acknowledgement after which a heartbeat is sent, and then the gateway is asked
   * over HTTP.
   */
  heartbeatMs: number;
  /**
   * Pause before a batch without an acknowledgement is sent again the first time: a second, less in
   * tests.
   */
  resendMs?: number;
  onDirective(directive: Directive): void;
  /**
   * Called when the gateway's database was restored from a backup: `lost` records that the spool
   * has released already are missing in it.
   */
  onRestored?: (lost: number) => void;
  /** Called with a failure that the sender survives; once, until a batch is acknowledged. */
  onTrouble?: (error: unknown) => void;
};

/**
 * Time that a record waits for others to share its batch. The first one of an idle attempt goes at
 * once.
 */
const gatherMs = 100;
const defaultResendMs = 1_000;
/**
 * Longest pause between two sends of a batch, as a multiple of the first. Each send that nobody
 * took leaves a copy on its stream: 25 in ten minutes, 6 MiB for an attempt.
 */
const longestPause = 30;
/** Time after which a call to the bus or the gateway without an answer is given up. */
const patienceMs = 10_000;
/**
 * Number of heartbeats after which an attempt that the gateway does not know is abandoned: its job
 * may run elsewhere by then.
 */
const unknownBeats = 3;
/**
 * Time after which an attempt is abandoned whose token the gateway refuses: until then it may still
 * take records from the bus.
 */
const refusedMs = 3_600_000;
/** Number of sends whose times are kept. An acknowledgement of an older send has no news. */
const rememberedSends = 64;

export class RecordSender {
  readonly #options: UplinkOptions;
  #committed = 0;
  /** The spool has released its records up to this number. */
  #released = 0;
  /** Number of times that the gateway's database came back older. */
  #restores = 0;
  /** The last number before the records of the newest send. */
  #sentAfter = 0;
  #acknowledgements = 0;
  #heardAt = performance.now();
  #leasedAt = -Infinity;
  #send = 0;
  /** Times at which the last sends began, by their numbers. */
  readonly #sentAt = new Map<number, number>();
  #ended = false;
  readonly #wakers = new Set<() => void>();
  #asked = false;
  /**
   * Time since which the gateway says that it does not know the attempt or the token; null while it
   * knows them.
   */
  #unknownSince: number | null = null;
  /** True when the last batch did not take all records: the next one follows at once. */
  #backlog = false;
  #troubled = false;
  readonly #running: Promise<void>;

  constructor(options: UplinkOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  /**
   * Time, by `performance.now()`, from which the lease certainly runs: the beginning of the newest
   * send that was acknowledged. −Infinity before the first, since the age of the claim's answer is
   * unknown.
   */
  get leasedAt(): number {
    return this.#leasedAt;
  }

  /** Call it when the spool has new records. */
  notify(): void {
    this.#wake();
  }

  /** Sends a heartbeat at once: the gateway has a directive, which the acknowledgement brings. */
  ask(): void {
    this.#asked = true;
    this.#wake();
  }

  /** Takes an acknowledgement; one for another attempt is ignored. */
  acknowledge(acknowledgement: Acknowledgement): void {
    if (acknowledgement.attemptId !== this.#options.attemptId || this.#ended) return;
    this.#acknowledgements++;
    this.#unknownSince = null;
    this.#heardAt = performance.now();
    const { send, committed } = acknowledgement;
    // A gateway that acknowledges the newest send had stored all records that were acknowledged
    // before it, unless its database came back older.
    if (send === this.#send && committed < this.#sentAfter) this.#goBack(committed);
    this.#leasedAt = Math.max(this.#leasedAt, this.#sentAt.get(acknowledgement.send ?? 0) ?? 0);
    this.#committed = Math.max(this.#committed, committed);
    for (const directive of acknowledgement.directives) this.#options.onDirective(directive);
    this.#wake();
  }

  /**
   * Goes on from the last record of a restored backup. Records that the spool has released
   * meanwhile become a gap.
   */
  #goBack(committed: number): void {
    this.#restores++;
    this.#committed = committed;
    this.#sentAfter = committed; // a second acknowledgement of this send must not go back again
    this.#options.onRestored?.(Math.max(0, this.#released - committed));
  }

  /** Resolves when all records in the spool are stored, or the sender was ended. */
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
   * Sends one batch, or a heartbeat, and waits for its acknowledgement. It is sent again after 1,
   * 2, 4 … 30 s while the bus took it or may have taken it; a batch that the bus certainly did not
   * take is offered again each second.
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
    // Only an acknowledgement of new records answers a batch. An older one is late, for a batch
    // that was sent twice: taken for the answer, it would make this batch be sent twice too, and so
    // on.
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

  /** Reads the records to send next; first a gap for records that a restored database has lost. */
  async #read(): Promise<{ first: number; last: number; records: RunnerRecord[] }> {
    const [committed, lost] = [this.#committed, this.#released - this.#committed];
    if (lost <= 0) return this.#options.spool.read(committed, maxBatchRecords, maxBatchBytes);
    const gap = { type: 'gap', time: Date.now(), lines: lost, reason: 'RESTORED' } as const;
    return { first: committed + 1, last: this.#released, records: [gap] };
  }

  /**
   * Renews the lease over HTTP after a silence, so that the lease and directives work without the
   * bus.
   */
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

  /**
   * Abandons the attempt after a while, since a gateway that does not know it never takes its
   * records: its database is another one, or came back older.
   */
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

  /**
   * Returns the result of the promise; undefined when the sender ends meanwhile. Rejects after 10 s
   * without a result.
   */
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

  /** Resolves after `ms`, when the sender ends, or when it is woken and `until()` is true. */
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
