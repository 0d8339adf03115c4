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
  /** Puts a batch at the end of an uplink stream; resolves once it is held there. */
  append(stream: number, batch: string): Promise<void>;
  /**
   * Takes up to `max` entries: first those that this consumer took before and is not `done` with, else new ones, waiting
   * up to `blockMs` for the first. An entry may come twice, here or elsewhere: whoever stores it must notice a repeat.
   */
  take(consumer: string, options: { max: number; blockMs: number; signal: AbortSignal }): Promise<UplinkEntry[]>;
  /** Forgets entries: they are committed, or will never be. */
  done(entries: readonly UplinkEntry[]): Promise<void>;
  /** Resolves when the bus works. */
  ping(): Promise<void>;
  /** Ends everything. Ending twice is fine. */
  close(): Promise<void>;
};

/** Number of uplink streams; an attempt's batches all go to one. */
export const uplinkStreams = 4;

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
export function streamOf(attemptId: string): number {
  let hash = 0;
  for (const character of attemptId) hash = (hash * 31 + character.charCodeAt(0)) >>> 0;
  return hash % uplinkStreams;
}
