// What a runner sends, as both ends see it. An attempt is one ordered stream of records, numbered 1, 2, 3 … by its
// supervisor: log, metrics and state in one order, so that "finished" is stored after everything it finishes.
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import { textOf } from '../shape.ts';

export const maxBatchRecords = 1_000;
export const maxBatchBytes = 256 * 1024;
/** Bytes of a line's text; a longer one is cut and says so. */
export const maxLineBytes = 16 * 1024;

/** The last moment that a Date holds. */
const latestTime = 8_640_000_000_000_000;
/** Milliseconds since the Unix epoch. */
const time = z.number().int().min(0).max(latestTime);
const step = z.number().int().min(-Number.MAX_SAFE_INTEGER).max(Number.MAX_SAFE_INTEGER).nullable();
/** A number, or the name of what JSON cannot say. */
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
  // Takes `lines` numbers of the stream, as the lost lines did; of a restored database, as the lost records of any kind did.
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
    /** A process of its control group was killed for want of memory while it ran. */
    oomKilled: z.boolean().optional(),
    message: text,
    /** Lines of the attempt and the CRC-32 of their texts: a difference to what is stored is an alert, not silence. */
    lines: z.number().int().min(0),
    linesCrc: z.number().int().min(0),
  }),
]);

const batchHead = z.object({
  version: z.literal(1),
  attemptId: textOf(0, 64),
  leaseToken: textOf(0, 64),
  /** Number of the first record. */
  first: z.number().int().positive(),
  /** Number of the send, the same when it is sent again: its acknowledgement repeats it. */
  send: z.number().int().optional(),
  records: z.null(), // read apart
});

export type RunnerRecord = z.output<typeof record>;
export type RecordOf<Type extends RunnerRecord['type']> = Extract<RunnerRecord, { type: Type }>;
export type Batch = Omit<z.output<typeof batchHead>, 'records'> & { records: unknown[] };
/** A batch with its records as they were sent: JSON that may be passed on without writing it anew. */
export type DecodedBatch = Batch & { recordsJson: Buffer };

/** Numbers that a record takes: a gap of k lines takes k, any other record one. */
export function numbersOf(item: RunnerRecord): number {
  return item.type === 'gap' ? item.lines : 1;
}

const recordsKey = '"records":';
const closingBrace = 0x7d;

/** A batch as text: its CRC-32 in 8 hexadecimal digits, then JSON, the records last. No records make a heartbeat. */
export function encodeBatch({ version, attemptId, leaseToken, first, send, records }: Batch): string {
  const json = JSON.stringify({ version, attemptId, leaseToken, first, send, records });
  return crc32(json).toString(16).padStart(8, '0') + json;
}

/** The batch, or null for text, or its bytes, that was damaged on its way or never was one. Records are not looked at yet. */
export function decodeBatch(encoded: string | Buffer): DecodedBatch | null {
  const bytes = typeof encoded === 'string' ? Buffer.from(encoded) : encoded;
  const json = bytes.subarray(8);
  if (crc32(json).toString(16).padStart(8, '0') !== bytes.toString('latin1', 0, 8)) return null;
  // In a string the quotes would be escaped, and deeper in the object the rest of it would not be JSON.
  const at = json.indexOf(recordsKey) + recordsKey.length;
  const recordsJson = json.subarray(at, -1);
  try {
    const head = batchHead.parse(JSON.parse(`${json.toString('utf8', 0, at)}null}`));
    const records: unknown = JSON.parse(recordsJson.toString());
    if (!Array.isArray(records) || records.length > maxBatchRecords || json.at(-1) !== closingBrace) return null;
    return { ...head, records, recordsJson };
  } catch {
    return null;
  }
}

/** One record, or null when it follows no known shape: a poison record is set aside alone. */
export function parseRecord(value: unknown): RunnerRecord | null {
  if (isPlainLine(value)) return value;
  return record.safeParse(value).data ?? null;
}

const lineKeys = new Set(['type', 'time', 'stream', 'text']);

/** A line as every supervisor sends it, told without the schema: nearly all records are one, and it costs a tenth. */
function isPlainLine(value: unknown): value is RecordOf<'line'> {
  if (typeof value !== 'object' || value === null) return false;
  const { type, time, stream, text } = value as Partial<Record<keyof RecordOf<'line'>, unknown>>;
  if (type !== 'line' || typeof text !== 'string' || text.length > maxLineBytes * 2) return false;
  if (stream !== 'STDOUT' && stream !== 'STDERR' && stream !== 'SYSTEM') return false;
  if (typeof time !== 'number' || !Number.isInteger(time) || time < 0 || time > latestTime) return false;
  for (const key in value) if (!lineKeys.has(key)) return false;
  return true;
}

/** A metric's value as JSON can hold it. */
export function toWireValue(value: number): number | 'NaN' | 'Infinity' | '-Infinity' {
  return Number.isFinite(value) ? value : (String(value) as 'NaN');
}

/** The checksum of an attempt's lines, carried on from line to line; starts at 0. */
export function nextLinesCrc(crc: number, line: string): number {
  return crc32(`${line}\n`, crc);
}

/** The same for several lines at once, which costs a quarter. */
export function linesCrcAfter(crc: number, lines: readonly string[]): number {
  return lines.length === 0 ? crc : crc32(`${lines.join('\n')}\n`, crc);
}
