// Being asked to stop, and resting between steps. A stop is obeyed at the next step, never in the middle of one.
import { readFileSync } from 'node:fs';
import { setImmediate, setTimeout } from 'node:timers/promises';
import { isRecord } from './input.ts';

/** How long a rest may go without looking for the stop file, in milliseconds. */
const LOOK_EVERY_MS = 200;

export type StopRequest = {
  /** Lets signals in, then says why training should stop; undefined while it should not. */
  look(): Promise<string | undefined>;
  /** Waits until `untilMs` on the process's own clock (`performance.now()`), or until a stop. Returns the time rested. */
  rest(untilMs: number): Promise<number>;
};

/**
 * Listens for SIGTERM, SIGINT, the file `stopFile`, and a reader of standard output that went away. It listens for as
 * long as the process lives, so that a second signal does not cut off the saving of the weights.
 */
export function listenForStop(stopFile: string | undefined): StopRequest {
  let reason: string | undefined;
  const onSignal = (signal: NodeJS.Signals) => (reason ??= signal);
  const onOutputError = (error: NodeJS.ErrnoException) => (reason ??= `output closed (${error.code ?? error.message})`);
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  process.stdout.on('error', onOutputError);

  const look = async () => {
    await setImmediate();
    if (stopFile !== undefined) reason ??= readStopFile(stopFile);
    return reason;
  };
  const rest = async (untilMs: number) => {
    const startMs = performance.now();
    for (let leftMs = untilMs - startMs; leftMs > 0 && !(await look()); leftMs = untilMs - performance.now())
      await setTimeout(Math.min(leftMs, LOOK_EVERY_MS));
    return performance.now() - startMs;
  };
  return { look, rest };
}

/** A runner writes `{"reason", "deadline"}`; a file without a reason stops as well. */
function readStopFile(path: string): string | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return undefined; // not there (yet)
  }
  try {
    const content: unknown = JSON.parse(text);
    if (isRecord(content) && typeof content.reason === 'string') return `stop file: ${content.reason}`;
  } catch {
    // just created, or made by hand
  }
  return 'stop file';
}
