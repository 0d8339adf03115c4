// Memory of processes from /proc, where no control group counts it. The sum is of PSS, which divides a page by the number
// of processes that share it: a worker that was forked from a parent with 10 GB does not count these again.
import { readFile } from 'node:fs/promises';

/** The kernel walks all pages of a process for its PSS: about 20 ms a GB. */
const maxReads = 256;

export class ProcessMemory {
  /** Bytes of each process as last read, the oldest reading first. */
  readonly #bytes = new Map<number, number>();

  /**
   * Bytes of these processes together; null when none of them can be read. Reads one file after the other, of 256
   * processes at most: of more it reads those next time that it read longest ago, and counts the others as they were.
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

/** PSS; the resident size where that is for others to read, e.g. of a program with setuid; null for one that ended. */
async function bytesOf(pid: number): Promise<number | null> {
  return (
    (await readKilobytes(`/proc/${pid}/smaps_rollup`, /^Pss: +(\d+) kB$/m)) ??
    // Not `statm`, which counts in pages: they have 4, 16 or 64 KiB, and Node cannot say how many.
    (await readKilobytes(`/proc/${pid}/status`, /^VmRSS:\s+(\d+) kB$/m))
  );
}

async function readKilobytes(file: string, pattern: RegExp): Promise<number | null> {
  const text = await readFile(file, 'utf8').catch(() => '');
  const kilobytes = pattern.exec(text)?.[1];
  return kilobytes === undefined ? null : Number(kilobytes) * 1024;
}
