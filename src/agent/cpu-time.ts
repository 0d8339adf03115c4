// CPU time of an attempt from the stat files of its processes, where no control group counts it. It never falls when a
// process ends, and counts no process twice: the kernel adds the time of a child to its parent when the parent waits for it.

/** A tick of /proc is 1/100 s on every architecture that Node runs on. */
const ticksPerSecond = 100;

export type ProcessTime = {
  pid: number;
  /** Its pid with its start. */
  life: string;
  /** Pid of its parent. */
  parent: number;
  /** Its own time, and that of the children that it waited for. */
  ticks: number;
  childTicks: number;
};

/** `owed` is time of descendants that ended, as far as it does not show in `childTicks` yet. */
type CountedProcess = ProcessTime & { owed: number };

export class CpuTime {
  #running: ReadonlyMap<string, CountedProcess> = new Map();
  /** Ticks of processes that ended without an ancestor that could wait for them. */
  #orphanTicks = 0;

  /** All processes of the attempt that live now. What one used after it was last seen counts only if its parent waits. */
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
