// PORT: the bus. It carries messages, which are hints ("look again") and may be lost, and the
// uplink from runners, whose entries stay until a gateway is done with them. Neither is the place
// where a fact is kept.

/** Entry of an uplink stream: one batch of an attempt's records, the bytes of its text. */
export type UplinkEntry = { readonly stream: number; readonly id: string; readonly batch: Buffer };

export type Bus = {
  /**
   * Sends a message to all current listeners of the channel; bytes are UTF-8. A lost message must
   * cost time, never data.
   */
  publish(channel: string, message: string | Buffer): Promise<void>;
  /**
   * Calls `listener` with each message until the returned function is called. It resolves even
   * while the bus is away; `onBreak` then tells of the missed messages.
   */
  subscribe(channel: string, listener: (message: string) => void): Promise<() => Promise<void>>;
  /** Calls `listener` whenever messages may have been lost, so that all positions are checked again. */
  onBreak(listener: () => void): () => void;
  /**
   * Appends a batch to an uplink stream; resolves once the stream holds it. Rejects with
   * `NotAppended` when it certainly does not. After any other error it may hold the batch, and
   * appending again may make a second copy.
   */
  append(stream: number, batch: string): Promise<void>;
  /**
   * Takes up to `max` entries that this consumer does not hold, waiting up to `blockMs` for the
   * first. These are new entries; entries that another consumer has held for `idleMs`, because it
   * is dead or slow; and after a broken connection, entries of this consumer whose delivery was
   * lost. Each stream keeps its order. Fewer than `max` mean that every stream was read to its end.
   *
   * The caller keeps the entries in memory until it calls `done`: the same consumer never gets them
   * again, so that an entry that cannot be stored does not block others. An entry held for longer
   * than `idleMs` may go to another consumer as well. That is harmless: storing a batch twice is
   * noticed, and `done` of a missing entry is no error.
   *
   * An entry that holds no batch (larger than `maxEntryBytes`, or not written by `append`) comes
   * with an empty one. While a stream cannot be read, `take` rejects now and then, naming it, and
   * reads the others in between.
   */
  take(consumer: string, options: { max: number; blockMs: number; signal: AbortSignal }): Promise<UplinkEntry[]>;
  /**
   * Removes entries that are committed, or never will be. When it rejects they are still held, and
   * the call may be repeated.
   */
  done(entries: readonly UplinkEntry[]): Promise<void>;
  /**
   * Arrival time of the oldest entry that is not done; null for none. An entry whose id names a
   * future time counts from the first call that saw it, so call it regularly.
   */
  oldest(): Promise<Date | null>;
  /**
   * Appends a mark to every uplink stream and removes it again. Rejects with a sentence about each
   * stream that takes none. A stream whose ids are used up is recreated first, once everything on
   * it is done.
   */
  probe(): Promise<void>;
  /** Resolves when the bus works. */
  ping(): Promise<void>;
  /** Closes all connections. Closing twice is fine. */
  close(): Promise<void>;
};

/**
 * Number of uplink streams; all batches of an attempt go to one. `docker/redis.acl` names their
 * keys.
 */
export const uplinkStreams = 4;

/**
 * Upper bound of an entry, in bytes: four times a usual batch, so that the longest record fits.
 * Redis has the same bound as `proto-max-bulk-len`.
 */
export const maxEntryBytes = 1024 * 1024;

/**
 * Time after which the entries that a consumer holds go to others: it is dead, or so slow that help
 * is welcome.
 */
export const defaultIdleMs = 5_000;

/** The entry is certainly not on its stream: appending it again makes no second copy. */
export class NotAppended extends Error {
  override readonly name = 'NotAppended';
}

/**
 * Throws `NotAppended` for a batch that is too large. Redis enforces the same limit, but without a
 * reason.
 */
export function requireFitting(batch: string): void {
  const bytes = Buffer.byteLength(batch);
  if (bytes > maxEntryBytes) {
    throw new NotAppended(`A batch of ${bytes} bytes is larger than an uplink entry may be (${maxEntryBytes} bytes).`);
  }
}

/**
 * Names of the channels. They share the prefix `astraml:`, so that `psubscribe 'astraml:*'` shows
 * all messages.
 */
export const channels = {
  /** Numbers that the streams of a job have reached. */
  job: (jobId: string) => `astraml:job:${jobId}`,
  /** Transaction that changed a job of the project, or wrote an event of one. */
  project: (projectId: string) => `astraml:project:${projectId}`,
  /** Like `project`, for all projects. */
  projects: 'astraml:projects',
  /** Ids of access tokens that were revoked. */
  tokens: 'astraml:tokens',
  /** Notification that a job waits for a runner, or that GPUs became free. */
  work: 'astraml:work',
  /** Acknowledgements and directives for a runner. */
  runner: (runnerId: string) => `astraml:runner:${runnerId}`,
  /** Notification that a batch was appended to this uplink stream. */
  uplink: (stream: number) => `astraml:uplink:${stream}`,
} as const;

/** Returns the number of the uplink stream for an attempt. */
export function uplinkShard(attemptId: string): number {
  let hash = 0;
  for (const character of attemptId) hash = (hash * 31 + character.charCodeAt(0)) >>> 0;
  return hash % uplinkStreams;
}
