// Entries on their Redis streams: how a batch is written, read and ended. Anything else on a stream was put there by a
// stranger: it is read as an empty batch, which whoever stores it counts as damaged without parsing it.
import { crc32 } from 'node:zlib';
import { channels, maxEntryBytes, NotAppended, requireFitting, type UplinkEntry, uplinkStreams } from './bus.ts';
import { type Connection, isRefused, NotSent, requireAll } from './redis-connection.ts';

// As bytes: most of a batch is only passed on.
export type RawEntry = [id: Buffer, fields: Buffer[] | null];

export const group = 'astraml';
export const streams = Array.from({ length: uplinkStreams }, (_, stream) => stream);

const markField = 'p';
const markJson = '{"version":1,"attemptId":"probe","leaseToken":"","first":1,"records":[]}';
/** A batch of no attempt: a gateway of an older version that reads a mark stores nothing, counts nothing and ends it. */
const mark = crc32(markJson).toString(16).padStart(8, '0') + markJson;

/** Puts a batch on its stream and wakes whoever watches: `psubscribe 'astraml:*'` shows that it passed, not what it says. */
export async function appendEntry(connection: Connection, stream: number, batch: string): Promise<void> {
  requireFitting(batch);
  const key = channels.uplink(stream);
  try {
    await connection.run(async (redis) => {
      // A wake-up that fails is no failure of the entry, which stands on its stream.
      const [added] = (await redis.pipeline().xadd(key, '*', 'b', batch).publish(key, '').exec()) ?? [];
      if (added?.[0]) throw added[0];
    });
  } catch (error) {
    if (error instanceof NotSent || isRefused(error)) throw new NotAppended(messageOf(error), { cause: error });
    throw error;
  }
}

/** Puts a mark on a stream and takes it away again: whoever reads it meanwhile ends it. */
export async function appendMark(connection: Connection, stream: number): Promise<void> {
  const id = await connection.run((redis) => redis.xadd(channels.uplink(stream), '*', markField, mark));
  if (id) await endEntries(connection, [{ stream, id }]);
}

/** Ends entries for all consumers. Both commands or none: acknowledged alone they would stay in the stream for ever. */
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
    // Something else took the stream's place: its entries are gone, and those of other streams are ended.
    requireAll(results?.filter(([error]) => !isWrongType(error)) ?? null);
  });
}

/** The batch of an entry; null for the mark of a probe. An entry that somebody deleted from its stream has no fields. */
export function batchOf(fields: RawEntry[1]): Buffer | null {
  const [field, value] = fields ?? [];
  const isPair = fields?.length === 2 && value !== undefined && value.length <= maxEntryBytes;
  if (isPair && field?.toString() === 'b') return value;
  return isPair && field?.toString() === markField ? null : Buffer.of();
}

/** Redis lost its data, or is new. 7.0 says UNBLOCKED to a read that waits meanwhile. */
export function isGroupGone(error: unknown): boolean {
  return /\b(NOGROUP|UNBLOCKED)\b/.test(messageOf(error));
}

/** The key of a stream holds something else. */
export function isWrongType(error: unknown): boolean {
  return /\bWRONGTYPE\b/.test(messageOf(error));
}

/** Creates a stream and its group, from 0: what was appended before the group existed is read too. */
export async function createGroup(connection: Connection, stream: number): Promise<void> {
  try {
    await connection.run((redis) => redis.xgroup('CREATE', channels.uplink(stream), group, '0', 'MKSTREAM'));
  } catch (error) {
    if (!messageOf(error).includes('BUSYGROUP')) throw error; // another gateway was first
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : '';
}
