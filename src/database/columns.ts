// Columns that several tables share, so that one kind of fact is kept in one way.
import { sql, type SQL } from 'drizzle-orm';
import { customType, timestamp } from 'drizzle-orm/pg-core';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

/** An instant with the precision that JavaScript and the API have: milliseconds. */
export const instant = () => timestamp({ withTimezone: true, precision: 3, mode: 'date' });

/** Bytes, e.g. a chunk of log lines: unlike text they may hold any character, NUL too. */
export const bytes = customType<{ data: Buffer; driverData: Buffer }>({ dataType: () => 'bytea' });

const compression = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
const worthPacking = 512;
const zstdMagic = 0xfd2fb528;

/**
 * JSON as bytes to keep. Compressed here, where it costs a tenth of what Postgres takes for it, and sends a tenth of it:
 * the driver writes bytes as hexadecimal text.
 */
export function packBytes(json: string): { packed: Buffer; size: number } {
  const plain = Buffer.from(json);
  return { packed: plain.length < worthPacking ? plain : zstdCompressSync(plain, compression), size: plain.length };
}

/** The JSON that was packed. */
export function unpackBytes(packed: Buffer): string {
  const isPacked = packed.length >= 4 && packed.readUInt32LE() === zstdMagic;
  return (isPacked ? zstdDecompressSync(packed) : packed).toString();
}

const xid8 = customType<{ data: string; driverData: string }>({ dataType: () => 'xid8' });

/**
 * Transaction that last wrote the row. Streams over many jobs are read by it, up to the oldest transaction that is
 * still open: serial ids and timestamps are handed out before the commit, and a reader would step over some.
 */
export const changed = () =>
  xid8()
    .notNull()
    .default(sql`pg_current_xact_id()`);

/** The database's clock, to the millisecond. */
export const now: SQL<Date> = sql`clock_timestamp()`;
