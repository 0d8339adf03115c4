// Watches the lease of a command that must never run twice: it is gone before its lease can expire,
// since another runner may start the job then. A guard process kills it when this process cannot.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Guard, RunningCommand } from './executor.ts';
import type { RecordSender } from './record-sender.ts';

/**
 * Fractions of a lease that is not renewed: after 0.9 all processes must be gone, and SIGTERM comes
 * at most 1/6 of the lease before SIGKILL.
 */
const [goneBefore, longestCutGrace] = [0.9, 1 / 6];
/**
 * Fraction of the lease after which the guard kills the processes, when the supervisor could not.
 */
const guardedBefore = 0.95;
const leaseCheckMs = 10;

export class LeaseWatch {
  readonly #sender: Pick<RecordSender, 'leasedAt'>;
  readonly #guard: Guard;
  readonly #leaseMs: number;
  /** `leasedAt` when the guard was last told its time. */
  #guardedAt = -Infinity;

  constructor(sender: Pick<RecordSender, 'leasedAt'>, guard: Guard, leaseMs: number) {
    this.#sender = sender;
    this.#guard = guard;
    this.#leaseMs = leaseMs;
  }

  /**
   * Resolves when a gateway confirms the lease, or the attempt is stopped. The answer to the claim
   * may have come so late that another runner has the job.
   */
  async confirmed(isStopped: () => boolean): Promise<void> {
    while (!isStopped() && performance.now() - this.#sender.leasedAt > this.#leaseMs / 2) await sleep(leaseCheckMs);
    this.#extendGuard();
  }

  /** Makes the guard find the processes of the command. */
  watch(command: RunningCommand): void {
    this.#guard.know(command.life);
  }

  /**
   * Returns null while the lease is renewed. When the command must be stopped: the milliseconds
   * until all its processes must be gone.
   */
  check(graceMs: number): number | null {
    this.#extendGuard();
    const remainingMs = this.#sender.leasedAt + this.#leaseMs * goneBefore - performance.now();
    return remainingMs > Math.min(graceMs, this.#leaseMs * longestCutGrace) ? null : Math.max(0, remainingMs);
  }

  /** Ends the guard, once all processes are gone. */
  end(): void {
    this.#guard.release();
  }

  /**
   * Moves the time at which the guard kills the command: it is needed when this process stands
   * still or is dead.
   */
  #extendGuard(): void {
    const { leasedAt } = this.#sender;
    if (leasedAt === this.#guardedAt) return;
    this.#guardedAt = leasedAt;
    this.#guard.endAt(leasedAt + this.#leaseMs * guardedBefore);
  }
}
