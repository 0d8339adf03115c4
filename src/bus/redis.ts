// The bus over Redis: messages by PUBLISH, the uplink by streams. Redis is only transport. While it
// is away, calls reject and messages are missed, but no record is lost: runners keep records until
// they are acknowledged. All connections come back by themselves.
import { type Bus, defaultIdleMs, maxEntryBytes } from './bus.ts';
import { connect } from './redis-connection.ts';
import { appendEntry, endEntries } from './redis-entry.ts';
import { RedisMessages } from './redis-messages.ts';
import { createAgeWatch, probeStreams } from './redis-probe.ts';
import { openUplinkConsumer } from './redis-uplink.ts';

export type RedisBusOptions = {
  /**
   * Called when Redis cannot be reached or refuses the connection; once, until it is back. Errors
   * hold no content and no password.
   */
  onAway?: (error: Error) => void;
  onBack?: () => void;
  /** Called when a listener threw, or Redis refused one channel. */
  onTrouble?: (error: unknown) => void;
  idleMs?: number;
};

/** Makes a bus that connects in the background, and tries until it succeeds. */
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
  const messages = new RedisMessages(url, report, (error) => options.onTrouble?.(error));
  const uplink = openUplinkConsumer(url, options.idleMs ?? defaultIdleMs, report);

  return {
    async publish(channel, message) {
      // Redis may be configured to take no longer argument; it would close the connection.
      if (Buffer.byteLength(message) > maxEntryBytes)
        throw new Error(`A message holds at most ${maxEntryBytes} bytes.`);
      await connection.run((redis) => redis.publish(channel, message));
    },
    subscribe: (channel, listener) => messages.subscribe(channel, listener),
    onBreak: (listener) => messages.onBreak(listener),
    append: (stream, batch) => appendEntry(connection, stream, batch),
    take: uplink.take,
    async done(entries) {
      await endEntries(connection, entries);
      uplink.forget(entries);
    },
    oldest: createAgeWatch(connection),
    probe: () => probeStreams(connection, url),
    async ping() {
      await connection.run((redis) => redis.ping());
    },
    async close() {
      await Promise.all([connection.close(), messages.close(), uplink.close()]);
    },
  };
}
