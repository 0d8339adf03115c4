// Writes, reads and ends entries of the Redis streams. An entry that `appendEntry` did not write is
// read as an empty batch, which the intake counts as damaged without parsing it.
import { crc32 } from 'node:zlib';
import { channels, maxEntryBytes, NotAppended, requireFitting, type UplinkEntry, uplinkStreams } from './bus.ts';
import { type Connection, isRefused, NotSent, requireAll } from './redis-connection.ts';

/** An entry as Redis returns it, as bytes: most of a batch is only passed on. */
export type RawEntry = [id: Buffer, fields: Buffer[] | null];

export const group = 'astraml';
export const streams = Array.from({ length: uplinkStreams }, (_, stream) => stream);

const markField = 'p';
const markJson = '{"version":1,"attemptId":"probe","leaseToken":"","first":1,"records":[]}';
/**
 * Content of a mark: a batch of no attempt, so that a gateway of an older version stores nothing of
 * it and ends it.
 */
const mark = crc32(markJson).toString(16).padStart(8, '0') + markJson;

/**
 * Appends a batch to its stream, and publishes an empty message on the channel of the stream:
 * `psubscribe 'astraml:*'` shows that a batch passed, not its content.
 */
export async function appendEntry(connection: Connection, stream: number, batch: string): Promise<void> {
  requireFitting(batch);
  const key = channels.uplink(stream);
  try {
    await connection.run(async (redis) => {
      // A failed publish is no failure: the entry stands on its stream.
      const [added] = (await redis.pipeline().xadd(key, '*', 'b', batch).publish(key, '').exec()) ?? [];
      if (added?.[0]) throw added[0];
    });
  } catch (error) {
    if (error instanceof NotSent || isRefused(error)) throw new NotAppended(messageOf(error), { cause: error });
    throw error;
  }
}

/**
 * Appends a mark to a stream and removes it again. A consumer that reads it in between ends it too.
 */
export async function appendMark(connection: Connection, stream: number): Promise<void> {
  const id = await connection.run((redis) => redis.xadd(channels.uplink(stream), '*', markField, mark));
  if (id) await endEntries(connection, [{ stream, id }]);
}

/**
 * Acknowledges entries and deletes them, in one transaction: acknowledged but not deleted, they
 * would stay in the stream for ever.
 */
export async function endEntries(
  connection: Connection,
  entries: readonly Pick<UplinkEntry, 'stream' | 'id'>[],
): Promise<void> {
  if (entries.length === 0) return;
  await connection.run(async (redis) => {
    const commands = redis.multi();
    for (const [stream, ended] of Map.groupBy(entries, (entry) => entry.stream)) {
      const ids = ended.map(({ id }) => id);
      commands.xack(channels.uplink(stream), group, ...ids).xdel(channels.uplink(stream), ...ids);
    }
    const results = await commands.exec();
    // With WRONGTYPE, another value has replaced the stream and its entries are gone; those of
    // other streams are ended.
    requireAll(results?.filter(([error]) => !isWrongType(error)) ?? null);
  });
}

/**
 * Returns the batch of an entry; null for the mark of a probe. An entry that was deleted from its
 * stream has no fields and gives an empty batch.
 */
export function batchOf(fields: RawEntry[1]): Buffer | null {
  const [field, value] = fields ?? [];
  const isPair = fields?.length === 2 && value !== undefined && value.length <= maxEntryBytes;
  if (isPair && field?.toString() === 'b') return value;
  return isPair && field?.toString() === markField ? null : Buffer.of();
}

/**
 * Whether the consumer group is missing, because Redis lost its data or is new. Redis 7.0 answers
 * UNBLOCKED to a read that waits at that moment.
 */
export function isGroupGone(error: unknown): boolean {
  return /\b(NOGROUP|UNBLOCKED)\b/.test(messageOf(error));
}

/** Whether the key of a stream holds another type of value. */
export function isWrongType(error: unknown): boolean {
  return /\bWRONGTYPE\b/.test(messageOf(error));
}

/**
 * Creates a stream and its consumer group, which reads from the start: entries older than the group
 * are read too.
 */
export async function createGroup(connection: Connection, stream: number): Promise<void> {
  try {
    await connection.run((redis) => redis.xgroup('CREATE', channels.uplink(stream), group, '0', 'MKSTREAM'));
  } catch (error) {
    // another gateway has created it meanwhile
    if (!messageOf(error).includes('BUSYGROUP')) throw error;
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : '';
}
