// The judge of hostile jobs. What the database refused of them is kept whole and shown as a gap in its place, the lines
// around it are there in their order, and a job whose start or end was refused has failed for that reason.
import postgres from 'postgres';
import { unpackBytes } from '../../src/database/columns.ts';
import type { AttemptRow, JobRow } from './checker.ts';
import type { Accuse, LogItem } from './evidence.ts';
import { type HostileKind, isHostileKind, kindOf, maxMetricNames, type Output, outputsAt } from './hostile-kinds.ts';
import { kindInName } from './hostile-jobs.ts';

type Sql = postgres.Sql;
type RefusedRow = { attemptId: string; number: number; record: Buffer };

const reasonCode = 'RECORD_REFUSED';
/** Ends of an attempt that are the runner's: faults of the infrastructure lead to them. */
const runnersEnds = ['RUNNER_LOST', 'RUNNER_DRAINED'];

export type HostileCase = { job: JobRow; attempts: readonly AttemptRow[]; log: readonly LogItem[] };

/** Judges all of them; returns how many records were refused. */
export async function checkHostileJobs(sql: Sql, cases: readonly HostileCase[], accuse: Accuse): Promise<number> {
  const [table] = await sql<{ name: string | null }[]>`select to_regclass('refused_record')::text as name`;
  let total = 0;
  for (const hostile of cases) {
    const { job, attempts } = hostile;
    const kind = kindInName(job.name);
    if (kind === null || !isHostileKind(kind)) {
      accuse('submitted once', `nobody submitted ${job.name}`);
      continue;
    }
    const rows = table?.name
      ? await sql<RefusedRow[]>`
          select attempt_id, number::int, record from refused_record where job_id = ${job.id} order by number`
      : [];
    total += rows.length;
    checkReasons(job, attempts, kind, accuse);
    for (const attempt of attempts) {
      const own = rows.filter(({ attemptId }) => attemptId === attempt.id);
      checkItems(hostile, attempt, kind, own.length, accuse);
      checkKept(job, attempt, kind, own, accuse);
    }
    if (rows.length > 0) await checkAlert(sql, job, accuse);
    await checkNames(sql, hostile, kind, accuse);
  }
  return total;
}

/** Why attempts ended: a refused start or end fails its attempt, and nothing else does. */
function checkReasons(job: JobRow, attempts: readonly AttemptRow[], kind: HostileKind, accuse: Accuse): void {
  for (const { number, state, reasonCode: code, finishedAt } of attempts) {
    if (!finishedAt || (code !== null && runnersEnds.includes(code))) continue;
    const isRight = kindOf(kind).fails ? state === 'FAILED' && code === reasonCode : state === 'SUCCEEDED';
    if (!isRight)
      accuse('hostile jobs end as they should', `${job.name}.${number} is ${state}, its reason ${code ?? 'none'}`);
  }
}

/** Lines in their order; where one was refused, or anything else, a gap stands. */
function checkItems(
  { job, log }: HostileCase,
  attempt: AttemptRow,
  kind: HostileKind,
  kept: number,
  accuse: Accuse,
): void {
  const where = `${job.name}.${attempt.number}`;
  const isRefused = (n: number) => kindOf(kind).isLong?.(n) ?? false;
  let [next, gaps, gapsBefore] = [1, 0, 0];
  /** Lines between are missing: each was refused, and a gap stands there for each. */
  const reach = (n: number) => {
    for (; next < n; next++) {
      if (!isRefused(next)) accuse('nothing is lost', `${where}: line ${next} is missing before line ${n}`);
      else if (gaps - gapsBefore < 1) accuse('a gap stands for what was refused', `${where}: none for line ${next}`);
      else gapsBefore++;
    }
    gapsBefore = gaps;
  };
  for (const item of log) {
    if (item.attempt !== attempt.number) continue;
    if (item.gap === 'REFUSED') gaps++;
    const n = Number(/^line (\d+) /.exec(item.text)?.[1] ?? 0);
    if (n === 0) continue;
    if (n < next) accuse('lines are in order', `${where}: line ${n} comes after line ${next - 1}`);
    reach(n);
    next = n + 1;
    if (item.text !== outputsAt(kind, job.name, n)[0]?.text)
      accuse('lines are what was printed', `${where}: line ${n} is "${item.text.slice(0, 100)}"`);
    if (isRefused(n)) accuse('what is refused is not stored', `${where}: line ${n}`);
  }
  // The lines before a refused end are all there.
  if (attempt.state === 'SUCCEEDED' || (kind === 'noend' && attempt.reasonCode === reasonCode))
    reach(kindOf(kind).lines + 1);
  if (gaps !== kept) accuse('a gap stands for what was refused', `${where}: ${gaps} gaps, ${kept} records are kept`);
}

/** All that was refused of an attempt that ran to its end, whole, and nothing else. */
function checkKept(
  job: JobRow,
  attempt: AttemptRow,
  kind: HostileKind,
  rows: readonly RefusedRow[],
  accuse: Accuse,
): void {
  const where = `${job.name}.${attempt.number}`;
  if (kindOf(kind).fails) {
    const types = rows.map(({ record }) => (JSON.parse(unpackBytes(record)) as { type: string }).type);
    const type = kind === 'nostart' ? 'started' : 'finished';
    if (types.some((other) => other !== type) || (attempt.reasonCode === reasonCode && types.length !== 1))
      accuse('what is refused is kept', `${where}: ${types.join(', ') || 'nothing'} instead of one ${type}`);
    return;
  }
  const numbers = Array.from({ length: kindOf(kind).lines }, (_, index) => index + 1);
  const expected = numbers.flatMap((n) => outputsAt(kind, job.name, n)).filter(({ refused }) => refused);
  if (attempt.state === 'SUCCEEDED' ? rows.length !== expected.length : rows.length > expected.length)
    accuse('what is refused is kept', `${where}: ${rows.length} of ${expected.length} records`);
  const lost = rows.find(({ record }) => !expected.some((output) => isWhole(unpackBytes(record), output)));
  if (lost)
    accuse(
      'what is refused is kept whole',
      `${where}: record ${lost.number} is ${unpackBytes(lost.record).slice(0, 200)}`,
    );
}

function isWhole(record: string, { record: type, text }: Output): boolean {
  type Sent = { type: string; text?: string; step?: number; path?: string; values?: object };
  const sent = JSON.parse(record) as Sent;
  if (sent.type !== type) return false;
  if (type === 'line') return sent.text === text;
  const marker = JSON.parse(text.slice(text.indexOf('{'))) as Record<string, unknown>;
  if (sent.step !== marker['step']) return false;
  if (type === 'checkpoint') return sent.path === marker['path'];
  return Object.entries(sent.values ?? {}).every(([name, value]) => marker[name] === value);
}

async function checkAlert(sql: Sql, job: JobRow, accuse: Accuse): Promise<void> {
  const alerts = await sql`
    select from event where job_id = ${job.id} and type = 'ALERT' and message like '%could not be stored%'`;
  if (alerts.length === 0) accuse('what is refused is told', `${job.name} has no alert`);
}

/**
 * As many names as a job may have, the first ones, and one line of the log that names the first beyond. `system/cpu` and
 * `system/memory` take their places among these when the supervisor stood still for 10 s before it read the others.
 */
async function checkNames(sql: Sql, { job, log }: HostileCase, kind: HostileKind, accuse: Accuse): Promise<void> {
  const { names } = kindOf(kind);
  if (names === undefined || job.state !== 'SUCCEEDED') return;
  type Row = { count: number; last: number; system: number };
  const [stored] = await sql<Row[]>`
    select count(*) filter (where name like 'm/%')::int, max(substring(name from '^m/(.*)')::int) as last,
      count(*) filter (where name in ('system/cpu', 'system/memory'))::int as system
    from metric where job_id = ${job.id}`;
  const limit = maxMetricNames - (stored?.system ?? 0);
  const expected = Math.min(names, limit);
  if (stored?.count !== expected || stored.last !== expected - 1)
    accuse('the first names are kept', `${job.name}: ${stored?.count} names up to m/${stored?.last}, not ${expected}`);
  // The limit is reached by a line of its own: a sample may come before the next.
  const first = new RegExp(`"(m/${limit}|system/cpu)"`);
  const mentions = log.filter(({ stream, text }) => stream === 2 && first.test(text)).length;
  if (names > limit && mentions === 0)
    accuse('the first name beyond the limit is told', `${job.name}: no line of its log names m/${limit}`);
}
