// What the trainer says: `::astraml` lines, which a runner reads as metrics and progress, and plain lines for people.
// Everything goes to standard output; outside a job the same lines are simply printed.

export function log(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** A record for the runner. Numbers that JSON cannot write (NaN, Infinity) go as strings, which the runner accepts. */
export function report(record: Record<string, string | number>): void {
  const json = JSON.stringify(record, (_, value: unknown) =>
    typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
  );
  log(`::astraml ${json}`);
}

/** Between two training reports, in milliseconds: some points each second, however fast the steps are. */
const REPORT_EVERY_MS = 400;

/** Collects the losses of the updates and reports their mean now and then, with the progress. */
export class TrainingReporter {
  #loss = 0;
  #count = 0;
  #last = { step: 0, epoch: 0, lr: 0 };
  #reportedMs = performance.now();
  readonly #total: { steps: number; epochs: number };
  readonly #everySteps: number | undefined;

  /** `everySteps` counts updates in place of the clock, so that two runs report at the same steps. */
  constructor(total: { steps: number; epochs: number }, everySteps?: number) {
    this.#total = total;
    this.#everySteps = everySteps;
  }

  /** After every update; `loss` is the mean over its samples, `lr` the rate that it used. */
  add(step: number, epoch: number, loss: number, lr: number): void {
    this.#last = { step, epoch, lr };
    this.#loss += loss;
    this.#count++;
    const isDue =
      this.#everySteps === undefined
        ? performance.now() - this.#reportedMs >= REPORT_EVERY_MS
        : step % this.#everySteps === 0;
    if (isDue) this.flush();
  }

  /** Reports what is not reported yet; to be called at the end. */
  flush(): void {
    if (this.#count === 0) return;
    const { step, epoch, lr } = this.#last;
    report({ step, epoch, 'train/loss': this.#loss / this.#count, 'train/lr': lr });
    report({ type: 'progress', step, total_steps: this.#total.steps, epoch, total_epochs: this.#total.epochs });
    this.#loss = 0;
    this.#count = 0;
    this.#reportedMs = performance.now();
  }
}
