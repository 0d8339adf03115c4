// commit(): the one way to write. It sends notifications ("this stream has come so far") only after
// the commit that made them true. After a deadlock or a serialization failure it runs the whole
// transaction again, three times in all.
import type { Bus } from '../bus/bus.ts';
import { type Database, databaseErrorCode, type DbTransaction } from '../database/database.ts';

/**
 * The highest number of each stream by the name of the stream, e.g. `{ line: 17 }`. A follower
 * compares its own position with it.
 */
export type StreamPositions = Record<string, number>;

/**
 * A JSON value as text, or as parts to be joined. A part that is already encoded is a Buffer, which
 * saves encoding it once more.
 */
type Json = string | readonly (string | Buffer)[];

export type Tx = DbTransaction & {
  /**
   * After the commit, tells the followers of `channel` which numbers its streams have reached.
   * Several notifications of one channel become one message with the highest `heads`. `records`
   * (JSON objects) travel in the same message, in the order of the calls.
   */
  notify(channel: string, heads?: StreamPositions, records?: readonly Json[]): void;
};

/**
 * The message that followers get. `records` are the rows that were stored, so that a follower next
 * to them need not read the database; they are absent when there are none.
 */
export type Notification = { heads: StreamPositions; records?: object[] };

export type Store = { readonly database: Database; readonly bus: Bus };

const tries = 3;

/**
 * Runs `work` in one transaction, then sends its notifications. Resolves after the commit. It does
 * not wait for the notifications, and a lost one is no error.
 */
export async function commit<T>(store: Store, work: (tx: Tx) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const notifications = new Map<string, { heads: StreamPositions; records: Json[] }>();
    const notify: Tx['notify'] = (channel, heads = {}, records = []) => {
      const notification = notifications.get(channel) ?? { heads: {}, records: [] };
      for (const [name, head] of Object.entries(heads))
        notification.heads[name] = Math.max(head, notification.heads[name] ?? 0);
      notification.records.push(...records);
      notifications.set(channel, notification);
    };
    try {
      const result = await store.database.transaction((tx) => work(Object.assign(tx, { notify })));
      // A lost notification costs a follower seconds, not rows: it looks into the database about
      // every 5 s.
      for (const [channel, notification] of notifications)
        store.bus.publish(channel, toMessage(notification)).catch(() => {});
      return result;
    } catch (error) {
      const code = databaseErrorCode(error);
      if (attempt >= tries || (code !== '40P01' && code !== '40001')) throw error;
    }
  }
}

/** Encodes a notification as JSON without parsing its records, which are JSON already. */
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
