// What the judge reads: the stored log, and what the witness of each command wrote.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type postgres from 'postgres';
import { unpackBytes } from '../../src/database/columns.ts';

export type Violation = { invariant: string; what: string };
export type Accuse = (invariant: string, what: string) => void;
/** A line of a log, or one number of a gap. */
export type LogItem = { seq: number; attempt: number; stream: number; text: string; gap: string | null };
export type Beat = { event: 'start' | 'beat' | 'end'; at: number; n: number; pid: number; attempt: number };

/** The stored lines and gaps, whose numbers must be 1 … N. */
export async function readLog(sql: postgres.Sql, jobId: string, accuse: Accuse): Promise<LogItem[]> {
  type Entry = [number, number, string, unknown];
  const rows = await sql<{ first: number; attempt: number; body: Buffer }[]>`
    select first::int, attempt, body from log_chunk where job_id = ${jobId} order by first`;
  const items: LogItem[] = [];
  for (const { first, attempt, body } of rows) {
    if (first !== items.length + 1)
      accuse('records are 1 … N', `${jobId}: a chunk begins with ${first} after ${items.length} lines`);
    for (const [, stream, text, mark] of JSON.parse(unpackBytes(body)) as Entry[]) {
      const isGap = mark === 'gap'; // then its second part is the number of its lines, and the third the reason
      for (let n = 0; n < (isGap ? stream : 1); n++) {
        const content = isGap ? { stream: -1, text: '', gap: text } : { stream, text: String(text), gap: null };
        items.push({ seq: items.length + 1, attempt, ...content });
      }
    }
  }
  items.forEach((item, index) => {
    const before = items[index - 1];
    if (before && item.attempt < before.attempt)
      accuse(
        'nothing is written after the successor',
        `${jobId}: line ${item.seq} is of attempt ${item.attempt}, after one of ${before.attempt}`,
      );
  });
  return items;
}

/** What the witness of a job's command wrote; nothing when it never ran. */
export function readWitness(folder: string, key: string): Beat[] {
  const file = join(folder, `${key}.jsonl`);
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8').split('\n');
  return lines.filter((line) => line.endsWith('}')).map((line) => JSON.parse(line) as Beat);
}
