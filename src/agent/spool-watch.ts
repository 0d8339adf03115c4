// Watches the spool of an attempt and warns once of each trouble: the log and the runner of a disk
// that takes no records, the runner of dropped lines.
import type { CommandOutput } from './output.ts';
import type { Spool } from './spool.ts';

/**
 * Upper bound of records in memory while neither the disk nor the gateway takes them. Beyond it the
 * attempt stops, before a record is lost.
 */
const maxHeldBytes = 64 * 1024 * 1024;

export class SpoolWatch {
  readonly #spool: Spool;
  readonly #attemptId: string;
  readonly #output: CommandOutput;
  readonly #onTrouble: ((error: unknown) => void) | undefined;
  #warnedOfFailure = false;
  #warnedOfLoss = false;

  constructor(spool: Spool, attemptId: string, output: CommandOutput, onTrouble?: (error: unknown) => void) {
    this.#spool = spool;
    this.#attemptId = attemptId;
    this.#output = output;
    this.#onTrouble = onTrouble;
  }

  /** Returns whether the attempt can go on: records that the disk does not take fit into memory. */
  check(): boolean {
    const { failure, heldBytes, lostLines } = this.#spool;
    if (lostLines > 0 && !this.#warnedOfLoss) {
      this.#warnedOfLoss = true;
      this.#onTrouble?.(new Error(`The spool of ${this.#attemptId} is full: its oldest lines are given up.`));
    }
    if (!failure) return true;
    if (!this.#warnedOfFailure) {
      this.#warnedOfFailure = true;
      this.#output.say('The disk of the runner takes no records at present; they wait in its memory.');
      this.#onTrouble?.(new Error(`The spool of ${this.#attemptId} cannot be written.`, { cause: failure }));
    }
    return heldBytes < maxHeldBytes;
  }
}
