// Sums the CPU time of an attempt from /proc, where no control group counts it. The sum never falls
// when a process ends, and counts no process twice: when a parent waits for a child, the kernel
// adds the child's time to the parent's.

/** A tick of /proc is 1/100 s on every architecture that Node runs on. */
const ticksPerSecond = 100;

export type ProcessTime = {
  pid: number;
  /** The pid with the start time. */
  life: string;
  /** Pid of the parent. */
  parent: number;
  /** `ticks`: time of its own. `childTicks`: time of the children that it has waited for. */
  ticks: number;
  childTicks: number;
};

/**
 * `owed`: time of descendants that have ended and that `childTicks` does not contain yet, since
 * their parent has not waited for them.
 */
type CountedProcess = ProcessTime & { owed: number };

export class CpuTime {
  #running: ReadonlyMap<string, CountedProcess> = new Map();
  /** Ticks of processes that ended without a living ancestor. */
  #orphanTicks = 0;

  /**
   * Takes the living processes of the attempt. Time that a process used after the last call counts
   * only if its parent waits for it.
   */
  see(processes: readonly ProcessTime[]): void {
    const before = this.#running;
    const running = new Map(processes.map((one) => [one.life, { ...one, owed: before.get(one.life)?.owed ?? 0 }]));
    const livesBefore = new Map([...before.values()].map(({ pid, life }) => [pid, life]));
    for (const ended of before.values()) {
      if (running.has(ended.life)) continue;
      let ancestor: CountedProcess | undefined = ended;
      while (ancestor && !running.has(ancestor.life)) ancestor = before.get(livesBefore.get(ancestor.parent) ?? '');
      const debtor = ancestor && running.get(ancestor.life);
      if (debtor) debtor.owed += ticksOf(ended);
      else this.#orphanTicks += ticksOf(ended);
    }
    for (const one of running.values()) {
      const waitedFor = one.childTicks - (before.get(one.life)?.childTicks ?? one.childTicks);
      one.owed = Math.max(0, one.owed - waitedFor);
    }
    this.#running = running;
  }

  get seconds(): number {
    const ticks = [...this.#running.values()].reduce((sum, one) => sum + ticksOf(one), this.#orphanTicks);
    return ticks / ticksPerSecond;
  }
}

function ticksOf({ ticks, childTicks, owed }: CountedProcess): number {
  return ticks + childTicks + owed;
}
