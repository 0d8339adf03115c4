// commit(): the one way to write. Notifications, which tell followers how far a stream has come, leave only after the commit
// that made them true; a deadlock or serialization failure runs the whole transaction again.
import type { Bus } from '../bus/bus.ts';
import { type Database, databaseErrorCode, type DbTransaction } from '../database/database.ts';

/** Numbers that streams have reached, by name: what a follower compares its own position with. */
export type StreamPositions = Record<string, number>;

/** JSON as text, or the parts of it, of which some may be at hand as bytes. */
type Json = string | readonly (string | Buffer)[];

/** A transaction that may also notify. */
export type Tx = DbTransaction & {
  /**
   * After the commit, tells the channel's followers. Several notifications of one channel become one message; numbers only
   * grow, records, each an object as JSON, are told in the order in which they came.
   */
  notify(channel: string, heads?: StreamPositions, records?: readonly Json[]): void;
};

/** What a channel carries: how far its streams have come, and what was stored, for whoever listens beside us. */
export type Notification = { heads: StreamPositions; records?: object[] };

export type Store = { readonly database: Database; readonly bus: Bus };

const tries = 3;

/** Runs `work` in one transaction, then sends its notifications. Resolves after the commit; a lost notification is no error. */
export async function commit<T>(store: Store, work: (tx: Tx) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const notifications = new Map<string, { heads: StreamPositions; records: Json[] }>();
    const notify: Tx['notify'] = (channel, heads = {}, records = []) => {
      const known = notifications.get(channel) ?? { heads: {}, records: [] };
      for (const [name, head] of Object.entries(heads)) known.heads[name] = Math.max(head, known.heads[name] ?? 0);
      known.records.push(...records);
      notifications.set(channel, known);
    };
    try {
      const result = await store.database.transaction((tx) => work(Object.assign(tx, { notify })));
      // Nobody waits for these: a follower that misses one looks again by itself.
      for (const [channel, notification] of notifications)
        store.bus.publish(channel, toMessage(notification)).catch(() => {});
      return result;
    } catch (error) {
      const code = databaseErrorCode(error);
      if (attempt >= tries || (code !== '40P01' && code !== '40001')) throw error;
    }
  }
}

/** A notification as JSON, around records that are JSON already. */
function toMessage({ heads, records }: { heads: StreamPositions; records: readonly Json[] }): string | Buffer {
  const start = `{"heads":${JSON.stringify(heads)}`;
  if (records.length === 0) return `${start}}`;
  const parts = [
    `${start},"records":[`,
    ...records.flatMap((record, index) => [index > 0 ? ',' : '', record].flat()),
    ']}',
  ];
  return Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)));
}
