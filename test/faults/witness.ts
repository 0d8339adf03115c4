// The witness of a job's command: a file beside the product's own records, which says by the machine's monotonic clock
// when the process ran and how many lines it had printed.
import { appendFileSync } from 'node:fs';
import { monotonicMs } from './weather.ts';

export type Witness = {
  /** Lines printed so far. */
  n: number;
  end(): void;
};

const everyMs = 50;

/** Begins to testify in this file. */
export function openWitness(file: string): Witness {
  const attempt = Number(process.env['ASTRAML_ATTEMPT']);
  const say = (event: 'start' | 'beat' | 'end') => {
    const at = monotonicMs();
    appendFileSync(file, `${JSON.stringify({ event, at, n: witness.n, pid: process.pid, attempt })}\n`);
  };
  const witness = {
    n: 0,
    end() {
      clearInterval(beats);
      say('end');
    },
  };
  say('start');
  const beats = setInterval(() => say('beat'), everyMs);
  return witness;
}
