// An attempt that runs on this machine: in this process (`dev`), or in one of its own that outlives the runner.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
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

/** In the folder of an attempt while it runs: for the next start of the runner, should this one be killed. */
export const attemptFileName = 'attempt.json';
const attemptFile = z.object({
  jobId: z.string(),
  attempt: z.string(),
  gpus: z.array(z.number()),
  /** Of its command, once it runs: see AttemptName. */
  life: z.string().nullish(),
});
export type AttemptFile = z.output<typeof attemptFile>;

/** Undefined when there is none: the attempt ended in order. Null for half a file: its command was not started. */
export async function readAttemptFile(folder: string): Promise<AttemptFile | null | undefined> {
  const text = await readFile(join(folder, attemptFileName), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  return attemptFile.safeParse(parseJson(text)).data ?? null;
}

/** Undefined for text that is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
