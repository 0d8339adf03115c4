// The bus over Redis: messages by PUBLISH, the uplink by streams. Redis is transport only: while it is away calls reject
// or messages are missed, nothing is lost that a runner was told is committed, and all comes back by itself.
import type { Bus } from './bus.ts';
import { connect } from './redis-connection.ts';
import { openMessages } from './redis-messages.ts';
import { appendEntry, endEntries, openUplink } from './redis-uplink.ts';

export type RedisBusOptions = {
  /** Redis cannot be reached, or refuses us; told once, until it is back. No error holds content or a password. */
  onAway?: (error: Error) => void;
  onBack?: () => void;
  /** A listener threw, or Redis refused one channel. */
  onTrouble?: (error: unknown) => void;
};

/** Entries that a consumer holds for so long are another's: it is dead, or so slow that help is welcome. */
const idleMs = 5_000;

/** Connects in the background, and for as long as it takes. */
export function redisBus(url: string, options: RedisBusOptions = {}): Bus {
  let away = false;
  const report = (error: Error) => {
    if (!away) options.onAway?.(error);
    away = true;
  };
  const connection = connect(url, report);
  connection.redis.on('ready', () => {
    if (away) options.onBack?.();
    away = false;
  });
  const messages = openMessages(url, report, (error) => options.onTrouble?.(error));
  const uplink = openUplink(url, idleMs, report);

  return {
    async publish(channel, message) {
      await connection.run((redis) => redis.publish(channel, message));
    },
    subscribe: messages.subscribe,
    onBreak: messages.onBreak,
    append: (stream, batch) => appendEntry(connection, stream, batch),
    take: uplink.take,
    async done(entries) {
      await endEntries(connection, entries);
      uplink.forget(entries);
    },
    async ping() {
      await connection.run((redis) => redis.ping());
    },
    async close() {
      await Promise.all([connection.close(), messages.close(), uplink.close()]);
    },
  };
}
