// Records of a runner, as both ends read them. An attempt is one ordered stream of records,
// numbered 1, 2, 3 … by its supervisor. Log, metrics and state have one order, so that `finished`
// is stored after everything before it.
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import { textOf } from '../shape.ts';

export const maxBatchRecords = 1_000;
export const maxBatchBytes = 256 * 1024;
/** Upper bound of the text of a line, in bytes; a longer line is cut and marked as truncated. */
export const maxLineBytes = 16 * 1024;

/** The largest time of a Date. */
const latestTime = 8_640_000_000_000_000;
/** Milliseconds since the Unix epoch. */
const time = z.number().int().min(0).max(latestTime);
const step = z.number().int().min(-Number.MAX_SAFE_INTEGER).max(Number.MAX_SAFE_INTEGER).nullable();
/** A number, or the name of a value that JSON does not have. */
const metricValue = z.union([z.number(), z.enum(['NaN', 'Infinity', '-Infinity'])]);
const text = textOf(0, maxLineBytes * 2);

export const maxMetricName = 250;
export const metricName = z
  .string()
  .max(maxMetricName)
  .regex(/^[A-Za-z0-9_][A-Za-z0-9_ ./%:-]*$/);

const record = z.discriminatedUnion('type', [
  z.object({ type: z.literal('started'), time }),
  z.object({
    type: z.literal('line'),
    time,
    stream: z.enum(['STDOUT', 'STDERR', 'SYSTEM']),
    text,
    truncated: z.boolean().optional(),
  }),
  z.object({
    type: z.literal('points'),
    time,
    step,
    epoch: z.number().nullable(),
    values: z.record(metricName, metricValue).refine((values) => Object.keys(values).length <= 200),
  }),
  z.object({
    type: z.literal('progress'),
    time,
    step,
    totalSteps: step,
    epoch: z.number().nullable(),
    totalEpochs: z.number().nullable(),
  }),
  z.object({ type: z.literal('checkpoint'), time, step, path: text }),
  z.object({
    type: z.literal('alert'),
    time,
    level: z.enum(['info', 'warn', 'error']),
    title: text,
    text,
  }),
  // A gap takes `lines` record numbers, as the lost lines did. With RESTORED, lost records of any
  // kind count.
  z.object({
    type: z.literal('gap'),
    time,
    lines: z.number().int().positive(),
    reason: z.enum(['SPOOL_OVERFLOW', 'RESTORED']),
  }),
  z.object({
    type: z.literal('finished'),
    time,
    outcome: z.enum(['EXITED', 'SIGNALLED', 'NOT_STARTED', 'TIMEOUT', 'CANCELLED', 'DRAINED', 'CUT_OFF']),
    exitCode: z.number().int().nullable(),
    signal: textOf(0, 20).nullable(),
    /** True when the kernel killed a process of the attempt's control group for lack of memory. */
    oomKilled: z.boolean().optional(),
    message: text,
    /**
     * Number of lines of the attempt and the CRC-32 of their texts. A difference to the database
     * raises an alert.
     */
    lines: z.number().int().min(0),
    linesCrc: z.number().int().min(0),
  }),
]);

const batchHead = z.object({
  version: z.literal(1),
  attemptId: textOf(0, 64),
  leaseToken: textOf(0, 64),
  /** Number of the first record of the batch. */
  first: z.number().int().positive(),
  /** Number of the send, kept when the batch is sent again. The acknowledgement repeats it. */
  send: z.number().int().optional(),
  records: z.null(), // `decodeBatch` parses the records apart
});

export type RunnerRecord = z.output<typeof record>;
export type RecordOf<Type extends RunnerRecord['type']> = Extract<RunnerRecord, { type: Type }>;
export type Batch = Omit<z.output<typeof batchHead>, 'records'> & { records: unknown[] };
/**
 * A batch with the JSON of its records as it came, so that it can be passed on without encoding it
 * again.
 */
export type DecodedBatch = Batch & { recordsJson: Buffer };

/** Returns how many numbers a record takes: k for a gap of k lines, 1 for any other. */
export function numbersOf(item: RunnerRecord): number {
  return item.type === 'gap' ? item.lines : 1;
}

const recordsKey = '"records":';
const closingBrace = 0x7d;

/**
 * Encodes a batch: its CRC-32 in 8 hexadecimal digits, then JSON with the records last. A batch
 * without records is a heartbeat.
 */
export function encodeBatch({ version, attemptId, leaseToken, first, send, records }: Batch): string {
  const json = JSON.stringify({ version, attemptId, leaseToken, first, send, records });
  return crc32(json).toString(16).padStart(8, '0') + json;
}

/**
 * Decodes a batch; null for damaged text or bytes, or anything else. The records are parsed JSON
 * but not checked.
 */
export function decodeBatch(encoded: string | Buffer): DecodedBatch | null {
  const bytes = typeof encoded === 'string' ? Buffer.from(encoded) : encoded;
  const json = bytes.subarray(8);
  if (crc32(json).toString(16).padStart(8, '0') !== bytes.toString('latin1', 0, 8)) return null;
  // The first match is the key itself: within a string its quotes would be escaped, and for a
  // nested key the JSON up to here would not parse.
  const recordsStart = json.indexOf(recordsKey) + recordsKey.length;
  const recordsJson = json.subarray(recordsStart, -1);
  try {
    const head = batchHead.parse(JSON.parse(`${json.toString('utf8', 0, recordsStart)}null}`));
    const records: unknown = JSON.parse(recordsJson.toString());
    if (!Array.isArray(records) || records.length > maxBatchRecords || json.at(-1) !== closingBrace) return null;
    return { ...head, records, recordsJson };
  } catch {
    return null;
  }
}

/** Returns one record; null when it has no valid shape, so that only this record is set aside. */
export function parseRecord(value: unknown): RunnerRecord | null {
  if (isPlainLine(value)) return value;
  return record.safeParse(value).data ?? null;
}

const lineKeys = new Set(['type', 'time', 'stream', 'text']);

/**
 * Whether the value is a line as supervisors send it. Nearly all records are lines, and this test
 * takes a tenth of the time of the schema.
 */
function isPlainLine(value: unknown): value is RecordOf<'line'> {
  if (typeof value !== 'object' || value === null) return false;
  const { type, time, stream, text } = value as Partial<Record<keyof RecordOf<'line'>, unknown>>;
  if (type !== 'line' || typeof text !== 'string' || text.length > maxLineBytes * 2) return false;
  if (stream !== 'STDOUT' && stream !== 'STDERR' && stream !== 'SYSTEM') return false;
  if (typeof time !== 'number' || !Number.isInteger(time) || time < 0 || time > latestTime) return false;
  for (const key in value) if (!lineKeys.has(key)) return false;
  return true;
}

/** Returns the value of a metric as JSON can hold it. */
export function toWireValue(value: number): number | 'NaN' | 'Infinity' | '-Infinity' {
  return Number.isFinite(value) ? value : (String(value) as 'NaN');
}

/** Returns the checksum of an attempt's lines after one more line; it starts at 0. */
export function nextLinesCrc(crc: number, line: string): number {
  return crc32(`${line}\n`, crc);
}

/** Like `nextLinesCrc` for several lines at once, in a quarter of the time. */
export function linesCrcAfter(crc: number, lines: readonly string[]): number {
  return lines.length === 0 ? crc : crc32(`${lines.join('\n')}\n`, crc);
}
