// When a fault of the infrastructure was on: what a bystander may wait for, and what a client may be refused for. Faults
// that jobs and clients cause are no weather: nobody else may notice them.

/** The machine's monotonic clock, as the witnesses of commands read it too. */
export const monotonicMs = () => Number(process.hrtime.bigint() / 1_000_000n);

export class Weather {
  readonly #storms: { from: number; to: number }[] = [];

  /** A fault of the infrastructure begins; the returned function ends it. */
  begin(): () => void {
    const storm = { from: monotonicMs(), to: Infinity };
    this.#storms.push(storm);
    return () => void (storm.to = monotonicMs());
  }

  /** Milliseconds between two moments of the monotonic clock during which no fault of the infrastructure was on. */
  calmMs(from: number, to: number): number {
    let calm = 0;
    let reached = from;
    for (const storm of this.#storms) {
      if (storm.to <= reached) continue;
      if (storm.from >= to) break;
      calm += Math.max(0, storm.from - reached);
      reached = storm.to;
    }
    return calm + Math.max(0, to - reached);
  }
}
