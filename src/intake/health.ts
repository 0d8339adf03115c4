// Whether this gateway may end a lease. An outage or a backlog of the gateway must never cost a job,
// so it must have read the uplink to its end, and reached the database, for one whole lease without
// a break.

export class Health {
  readonly #leaseMs: number;
  /** A process that does nothing for longer stood still. */
  readonly #breakMs: number;
  #wellSince: number | null = null;
  #turnedAt = performance.now();

  /** `blockMs` is the longest time that a turn waits for batches. */
  constructor(leaseSeconds: number, blockMs: number) {
    this.#leaseMs = leaseSeconds * 1000;
    this.#breakMs = Math.max(2 * blockMs, this.#leaseMs / 6);
  }

  isWell(): boolean {
    return this.#wellSince !== null && !this.#stoodStill() && performance.now() - this.#wellSince >= this.#leaseMs;
  }

  /** Ends a turn of reading and storing; `isAtEnd` says that nothing more waits in the uplink. */
  endTurn(isAtEnd: boolean): void {
    if (!isAtEnd || this.#stoodStill()) this.#wellSince = null;
    else this.#wellSince ??= performance.now();
    this.#turnedAt = performance.now();
  }

  /** The uplink or the database failed: the lease's time begins anew. */
  interrupt(): void {
    this.#wellSince = null;
  }

  /**
   * On waking (e.g. of a machine that slept), all leases look expired before the records that came
   * meanwhile are read.
   */
  #stoodStill(): boolean {
    return performance.now() - this.#turnedAt > this.#breakMs;
  }
}
