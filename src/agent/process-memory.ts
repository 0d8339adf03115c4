// Measures the memory of processes in /proc, where no control group counts it. It sums PSS, which
// divides each page by the number of processes that share it: a worker that was forked from a
// parent with 10 GB does not count these again.
import { readFile } from 'node:fs/promises';

/**
 * Number of processes that one sum reads: for a PSS the kernel walks all pages of the process,
 * about 20 ms a GB.
 */
const maxReads = 256;

export class ProcessMemory {
  /** Bytes of each process when it was last read, the oldest reading first. */
  readonly #bytes = new Map<number, number>();

  /**
   * Returns the bytes of these processes together; null when none can be read. Files are read one
   * after the other, at most 256 a call. With more processes, those read longest ago are read
   * first, and the others count as they were.
   */
  async sum(pids: readonly number[]): Promise<number | null> {
    const living = new Set(pids);
    for (const pid of this.#bytes.keys()) if (!living.has(pid)) this.#bytes.delete(pid);
    const unread = pids.filter((pid) => !this.#bytes.has(pid));
    for (const pid of [...unread, ...this.#bytes.keys()].slice(0, maxReads)) {
      this.#bytes.delete(pid);
      const bytes = await bytesOf(pid);
      if (bytes !== null) this.#bytes.set(pid, bytes);
    }
    return this.#bytes.size === 0 ? null : [...this.#bytes.values()].reduce((sum, bytes) => sum + bytes, 0);
  }
}

/**
 * Returns the PSS of a process. Where only its owner may read that, e.g. of a setuid program, the
 * resident size. Null for a process that has ended.
 */
async function bytesOf(pid: number): Promise<number | null> {
  return (
    (await readKilobytes(`/proc/${pid}/smaps_rollup`, /^Pss: +(\d+) kB$/m)) ??
    // `statm` is not used: it counts pages of 4, 16 or 64 KiB, and Node cannot tell their size.
    (await readKilobytes(`/proc/${pid}/status`, /^VmRSS:\s+(\d+) kB$/m))
  );
}

async function readKilobytes(file: string, pattern: RegExp): Promise<number | null> {
  const text = await readFile(file, 'utf8').catch(() => '');
  const kilobytes = pattern.exec(text)?.[1];
  return kilobytes === undefined ? null : Number(kilobytes) * 1024;
}
