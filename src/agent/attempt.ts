// An attempt that runs on this machine: in this process (`dev`), or in one of its own that outlives the runner.
import type { Acknowledgement } from '../protocol/control.ts';
import type { RecordOf } from '../protocol/record.ts';

export type Outcome = RecordOf<'finished'>['outcome'];

/** Go on without a gateway, or stop before somebody else can have the job. */
export type WhenCut = 'continue' | 'stop';

export type RunningAttempt = {
  readonly attemptId: string;
  /** Indexes of the GPUs that it holds. */
  readonly gpus: readonly number[];
  /** Resolves when it is over and acknowledged, or was abandoned; never rejects. */
  readonly done: Promise<void>;
  /** An acknowledgement for this attempt, or for another one. */
  acknowledge(acknowledgement: Acknowledgement): void;
  /** The gateway wants to be heard of. */
  ask(): void;
  /** Ends its command; the attempt's end says why. */
  stop(outcome: Outcome, graceMs?: number): void;
  /** Stops everything within this time and sends nothing more, not even the end. */
  abandon(graceMs: number): void;
};
