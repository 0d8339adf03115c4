// Bounds of one read of a log: lines, bytes, time, and what a search may look through.
import { giveWay } from '../turns.ts';

/**
 * A call with a filter ends once it has searched about this many bytes. `searchCost` in schema.ts
 * is computed from it.
 */
export const bytesPerSearch = 8 * 1024 * 1024;

/** Bounds of one read. */
export type ReadLimits = {
  maxLines: number;
  /** Characters of text after which a page ends; it holds one line at least. */
  maxBytes: number;
  /**
   * Takes the bytes of lines from the operation's budget, before more are read. An error that it
   * throws ends the read.
   */
  takeRows?: ((bytes: number) => Promise<void>) | undefined;
  /** Aborted when the operation is over: the read then throws. */
  signal?: AbortSignal | undefined;
  /** Milliseconds after which a read with a filter ends where it is. */
  searchMs?: number;
};

/**
 * Meters one read: gives way to other work before it opens a large chunk, takes bytes from the
 * budget, and tells when a filter has searched enough.
 */
export function startMeter({ takeRows, signal, searchMs = Infinity }: ReadLimits, filtered: boolean) {
  const beganAt = performance.now();
  let [opened, seen, taken] = [0, 0, 0];
  return {
    /** Runs before a chunk of `size` bytes is opened. */
    async open(size: number): Promise<void> {
      signal?.throwIfAborted();
      const turn = filtered || size > largeChunk ? giveWay() : undefined;
      if (turn) await turn;
      signal?.throwIfAborted();
      opened++;
      seen += size;
    },
    take: async (bytes: number) => {
      const more = bytes - taken;
      taken = bytes;
      if (more > 0) await takeRows?.(more);
    },
    /** False until one chunk was opened, so that each page makes progress however slow it is. */
    hasEnough: () => filtered && opened > 0 && (seen >= bytesPerSearch || performance.now() - beganAt >= searchMs),
  };
}

/**
 * A chunk of more bytes is parsed in a turn of its own, so that other requests are served in
 * between.
 */
export const largeChunk = 16 * 1024;
