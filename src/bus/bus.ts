// PORT: who is told, and the uplink from runners. Two things travel here, and neither is where a fact is kept:
// messages, which are hints and may be lost ("look again"), and the uplink, whose entries stay until they are done with.

/** Entry of an uplink stream: one batch of an attempt's records, the bytes of its text. */
export type UplinkEntry = { readonly stream: number; readonly id: string; readonly batch: Buffer };

export type Bus = {
  /** Tells whoever listens on the channel now; bytes are UTF-8. A message is a hint: losing it must cost time, never data. */
  publish(channel: string, message: string | Buffer): Promise<void>;
  /**
   * Calls `listener` with each message until the returned function is called. While the bus is away it resolves too:
   * what is missed then is said by `onBreak`.
   */
  subscribe(channel: string, listener: (message: string) => void): Promise<() => Promise<void>>;
  /** Calls `listener` whenever messages may have been lost, so that all positions are checked again. */
  onBreak(listener: () => void): () => void;
  /**
   * Puts a batch at the end of an uplink stream; resolves once it is held there. Rejects with `NotAppended` when it
   * certainly is not; after any other error it may stand there, and appending it again may make a second copy.
   */
  append(stream: number, batch: string): Promise<void>;
  /**
   * Takes up to `max` entries that this consumer does not hold, waiting up to `blockMs` for the first: new ones, those that
   * another consumer has held for `idleMs` (it is dead, or slow), and after a broken connection those of its own whose
   * delivery was lost. Each stream keeps its order. Fewer than `max` say that every stream was read to its end.
   *
   * The caller keeps what it took, in memory, until it is `done`: the same consumer never gets it again, so that an entry
   * that cannot be stored keeps no other from being read. Held for longer than `idleMs` it may go to another consumer as
   * well. That is harmless: whoever stores a batch notices a repeat, and `done` of an entry that is gone is no error.
   *
   * An entry that is no batch (larger than `maxEntryBytes`, or not written by `append`) comes as an empty one. While a
   * stream cannot be read `take` rejects now and then, naming it, and goes on with the others in between.
   */
  take(consumer: string, options: { max: number; blockMs: number; signal: AbortSignal }): Promise<UplinkEntry[]>;
  /** Forgets entries: they are committed, or will never be. When it rejects they are still held, and may be done again. */
  done(entries: readonly UplinkEntry[]): Promise<void>;
  /**
   * When the oldest entry arrived that is not done; null for none. An entry whose id names a time to come counts from
   * the first call that saw it: ask regularly.
   */
  oldest(): Promise<Date | null>;
  /**
   * Appends a mark to every uplink stream and takes it away again; rejects with a sentence about each stream that takes
   * none. A stream whose ids are used up is made anew first, once everything on it is done.
   */
  probe(): Promise<void>;
  /** Resolves when the bus works. */
  ping(): Promise<void>;
  /** Ends everything. Ending twice is fine. */
  close(): Promise<void>;
};

/** Number of uplink streams; an attempt's batches all go to one. Redis names the key of each in `docker/redis.acl`. */
export const uplinkStreams = 4;

/** Bytes of an entry: four times a usual batch, so that its longest record fits. Redis is told the same as `proto-max-bulk-len`. */
export const maxEntryBytes = 1024 * 1024;

/** A consumer's entries go to others when it has held them for so long: it is dead, or so slow that help is welcome. */
export const defaultIdleMs = 5_000;

/** The entry is certainly not on its stream: appending it again makes no second copy. */
export class NotAppended extends Error {
  override readonly name = 'NotAppended';
}

/** The limit on entries holds on both ends; this one gives the sender a reason. */
export function requireFitting(batch: string): void {
  const bytes = Buffer.byteLength(batch);
  if (bytes > maxEntryBytes) {
    throw new NotAppended(`A batch of ${bytes} bytes is larger than an uplink entry may be (${maxEntryBytes} bytes).`);
  }
}

/** Channels, all under `astraml:` so that `psubscribe 'astraml:*'` shows everything that passes. */
export const channels = {
  /** A job changed: the numbers its streams have reached. */
  job: (jobId: string) => `astraml:job:${jobId}`,
  /** A job of the project changed, or one of its events was written: the transaction that did it. */
  project: (projectId: string) => `astraml:project:${projectId}`,
  /** The same for all projects. */
  projects: 'astraml:projects',
  /** Access tokens were revoked: their ids. */
  tokens: 'astraml:tokens',
  /** A job waits for a runner, or GPUs became free. */
  work: 'astraml:work',
  /** Acknowledgements and directives for a runner. */
  runner: (runnerId: string) => `astraml:runner:${runnerId}`,
  /** A batch was put on this uplink stream. */
  uplink: (stream: number) => `astraml:uplink:${stream}`,
} as const;

/** The stream of an attempt. */
export function uplinkShard(attemptId: string): number {
  let hash = 0;
  for (const character of attemptId) hash = (hash * 31 + character.charCodeAt(0)) >>> 0;
  return hash % uplinkStreams;
}
