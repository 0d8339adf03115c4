// Whether jobs of an honest project notice what hostile ones do: each of their lines is stored soon after it was printed.
// When it was printed says the witness of its command, when it was stored a reader of the database.
import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import type { Beat, Violation } from './evidence.ts';
import { projectId } from './submitters.ts';
import { monotonicMs, type Weather } from './weather.ts';

/** How long a line may wait while no fault of the infrastructure is on. */
const mostWaitMs = 30_000;
const everyMs = 200;
const answerMs = 3_000;

export type Waits = {
  /** Milliseconds that each line waited, without those during which a fault of the infrastructure was on. */
  ms: number[];
  violations: Violation[];
};

/** One attempt as the judge read it. */
export type Printed = {
  jobId: string;
  name: string;
  attempt: number;
  /** Numbers in the job's log of the lines that its command printed, in their order. */
  seqs: readonly number[];
  beats: readonly Beat[];
  /** It has not ended: what is not stored by now still waits. */
  isOpen: boolean;
};

type Sample = { at: number; line: number };

export class Bystanders {
  readonly #weather: Weather;
  readonly #sql: postgres.Sql;
  readonly #samples = new Map<string, Sample[]>();
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;

  constructor(databaseUrl: string, weather: Weather) {
    this.#weather = weather;
    this.#sql = postgres(databaseUrl, { max: 1, connect_timeout: 2, fetch_types: false, onnotice: () => {} });
    this.#running = this.#watch();
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    await this.#running;
    await this.#sql.end({ timeout: 2 });
  }

  /** Whether a line is stored: on a slow machine the first one takes a while, and harm before it would hit nothing. */
  get hasLines(): boolean {
    return this.#samples.size > 0;
  }

  /** How long the lines of these attempts waited. */
  judge(attempts: readonly Printed[]): Waits {
    const waits: Waits = { ms: [], violations: [] };
    for (const { jobId, name, attempt, seqs, beats, isOpen } of attempts) {
      const own = beats.filter((beat) => beat.attempt === attempt);
      const samples = this.#samples.get(jobId) ?? [];
      const count = isOpen ? Math.max(seqs.length, own.at(-1)?.n ?? 0) : seqs.length;
      let [beat, sample, late] = [0, 0, 0];
      for (let n = 1; n <= count; n++) {
        const seq = seqs[n - 1] ?? Infinity;
        while (beat < own.length && (own[beat]?.n ?? 0) < n) beat++;
        while (sample < samples.length && (samples[sample]?.line ?? 0) < seq) sample++;
        const printed = own[beat]?.at;
        if (printed === undefined) break; // after the last beat of a command that was killed
        const ms = this.#weather.calmMs(printed, samples[sample]?.at ?? monotonicMs());
        waits.ms.push(ms);
        if (ms > mostWaitMs) late++;
      }
      const what = `${name}.${attempt}: ${late} of ${count} lines waited for more than ${mostWaitMs / 1000} s`;
      if (late > 0) waits.violations.push({ invariant: 'a bystander is stored within 30 s', what });
    }
    return waits;
  }

  /** Notes when the log of each job has grown. */
  async #watch(): Promise<void> {
    type Row = { id: string; line: number };
    while (!this.#ending.signal.aborted) {
      const rows = this.#sql<Row[]>`
        select job.id, line::int from job join job_stream on job_id = job.id where project_id = ${projectId}`;
      const answer = await Promise.race([rows.catch(() => null), sleep(answerMs, null)]);
      const at = monotonicMs();
      for (const { id, line } of answer ?? []) {
        const samples = this.#samples.get(id) ?? [];
        if (line <= (samples.at(-1)?.line ?? 0)) continue;
        samples.push({ at, line });
        this.#samples.set(id, samples);
      }
      await sleep(everyMs);
    }
  }
}

/** The value below which so much of them lies; 0 when there are none. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0);
}
