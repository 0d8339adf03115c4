// An attempt that runs on this machine: in the runner's process (`dev`), or in a supervisor process
// that outlives the runner.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Acknowledgement } from '../protocol/control.ts';
import type { RecordOf } from '../protocol/record.ts';

export type Outcome = RecordOf<'finished'>['outcome'];

/** Whether an attempt without a gateway goes on, or stops before another runner can get its job. */
export type WhenCut = 'continue' | 'stop';

export type RunningAttempt = {
  readonly attemptId: string;
  /** Indexes of the GPUs that the attempt holds. */
  readonly gpus: readonly number[];
  /**
   * Resolves when the attempt has ended and its records are acknowledged, or it was abandoned.
   * Never rejects.
   */
  readonly done: Promise<void>;
  /** Takes an acknowledgement, which may be for another attempt. */
  acknowledge(acknowledgement: Acknowledgement): void;
  /** Asks the gateway for an acknowledgement at once: it has a directive. */
  ask(): void;
  /** Ends the command. The attempt's end has this outcome. */
  stop(outcome: Outcome, graceMs?: number): void;
  /** Ends the command within `graceMs` and sends no more records, not even the end. */
  abandon(graceMs: number): void;
};

/**
 * File in the folder of a running attempt: the next start of the runner finds it when this one is
 * killed.
 */
export const attemptFileName = 'attempt.json';
const attemptFile = z.object({
  jobId: z.string(),
  attempt: z.string(),
  gpus: z.array(z.number()),
  /** Life of the command once it runs: see `AttemptName`. */
  life: z.string().nullish(),
});
export type AttemptFile = z.output<typeof attemptFile>;

/**
 * Reads the file of an attempt. Undefined when there is none: the attempt has ended in order. Null
 * when it is half written: its command was not started.
 */
export async function readAttemptFile(folder: string): Promise<AttemptFile | null | undefined> {
  const text = await readFile(join(folder, attemptFileName), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  return attemptFile.safeParse(parseJson(text)).data ?? null;
}

/** Parses JSON; undefined for other text. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
