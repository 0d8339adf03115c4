// The judge. It reads what clients were told, what subscribers saw, what the commands themselves witnessed, and the
// database, by SQL of its own; never what the gateway thinks of itself.
import { crc32 } from 'node:zlib';
import postgres from 'postgres';
import type { Bystanders, Printed } from './bystanders.ts';
import { type Accuse, type Beat, type LogItem, readLog, readWitness, type Violation } from './evidence.ts';
import { checkHostileJobs, type HostileCase } from './hostile-checker.ts';
import { hostileProjectId } from './hostile-kinds.ts';
import { projectId, type Submission } from './submitters.ts';
import type { Seen } from './subscribers.ts';
import { checkSeenEvents, checkSeenWindows, checkViewers } from './viewer-checker.ts';

export type Figures = {
  jobs: number;
  attempts: number;
  lines: number;
  points: number;
  lost: number;
  /** Hostile jobs among the jobs, and their records that were refused. */
  hostile: number;
  refused: number;
};

export type JobRow = { id: string; projectId: string; name: string; state: string; spec: { hyperparams?: object } };
export type AttemptRow = {
  id: string;
  jobId: string;
  number: number;
  state: string;
  reasonCode: string | null;
  createdAt: Date;
  finishedAt: Date | null;
  exitCode: number | null;
};
/** Milliseconds that two processes of a job may be seen together: what a witness itself may be late. */
const toleranceMs = 500;
const ends = ['SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT'];
/** The state machine, written down a second time on purpose. */
const moves: Record<string, string[]> = {
  QUEUED: ['STARTING', 'CANCELLED', 'TIMED_OUT'],
  STARTING: ['RUNNING', 'QUEUED', 'CANCELLING', 'FAILED', 'TIMED_OUT'],
  RUNNING: ['SUCCEEDED', 'FAILED', 'TIMED_OUT', 'QUEUED', 'CANCELLING'],
  CANCELLING: ['CANCELLED'],
};

export type Evidence = {
  databaseUrl: string;
  submissions: readonly Submission[];
  seen: readonly Seen[];
  witnessDir: string;
  /** Two processes of a job may overlap while the older one's runner is cut off. */
  mayOverlap: boolean;
  bystanders: Bystanders;
};

export type Judgement = {
  violations: Violation[];
  figures: Figures;
  /** Milliseconds that each line of a bystander waited. */
  waitsMs: number[];
};

export async function check(evidence: Evidence): Promise<Judgement> {
  const sql = postgres(evidence.databaseUrl, { max: 1, onnotice: () => {}, transform: postgres.camel });
  const violations: Violation[] = [];
  const figures: Figures = { jobs: 0, attempts: 0, lines: 0, points: 0, lost: 0, hostile: 0, refused: 0 };
  const accuse = (invariant: string, what: string) => void violations.push({ invariant, what });
  try {
    const all = await sql<JobRow[]>`
      select id, project_id, name, state, spec from job where project_id in (${projectId}, ${hostileProjectId})`;
    const jobs = all.filter((job) => job.projectId === projectId);
    figures.jobs = all.length;
    figures.hostile = all.length - jobs.length;
    checkSubmissions(evidence.submissions, jobs, accuse);
    const attempts = await sql<
      AttemptRow[]
    >`select id, job_id, number, state, reason_code, created_at, finished_at, exit_code
      from attempt order by job_id, number`;
    figures.attempts = attempts.length;
    figures.lost = attempts.filter(({ reasonCode }) => reasonCode === 'RUNNER_LOST').length;
    await checkHistories(sql, all, accuse);
    await checkChecksums(sql, accuse);
    const byJob = Map.groupBy(attempts, ({ jobId }) => jobId);
    const byName = new Map(evidence.submissions.map((submission) => [submission.key, submission]));
    const logs = new Map<string, LogItem[]>();
    const hostile: HostileCase[] = [];
    const printed: Printed[] = [];
    for (const job of all) {
      const own = byJob.get(job.id) ?? [];
      checkLeases(job, own, accuse);
      const beats = readWitness(evidence.witnessDir, job.name);
      checkOverlaps(job, beats, evidence.mayOverlap, accuse);
      const log = await readLog(sql, job.id, accuse);
      logs.set(job.id, log);
      const submission = byName.get(job.name);
      if (job.projectId === hostileProjectId) hostile.push({ job, attempts: own, log });
      if (!submission) continue; // accused already
      checkGaps(job, log, accuse);
      for (const attempt of own) {
        const seqs = checkLines(job, submission, attempt, log, beats, accuse);
        figures.lines += seqs.length;
        figures.points += await checkPoints(sql, job, submission, attempt, log, accuse);
        const isOpen = attempt.finishedAt === null;
        printed.push({ jobId: job.id, name: job.name, attempt: attempt.number, seqs, beats, isOpen });
      }
    }
    figures.refused = await checkHostileJobs(sql, hostile, accuse);
    checkViewers(evidence.seen, logs, accuse);
    await checkSeenWindows(sql, evidence.seen, accuse);
    await checkSeenEvents(sql, evidence.seen, accuse);
    const waits = evidence.bystanders.judge(printed);
    violations.push(...waits.violations);
    return { violations, figures, waitsMs: waits.ms };
  } finally {
    await sql.end({ timeout: 5 });
  }
}

type Sql = postgres.Sql;

/** What was acknowledged is there once; what nobody answered for is there once at most; a misused key changes nothing. */
function checkSubmissions(submissions: readonly Submission[], jobs: readonly JobRow[], accuse: Accuse): void {
  const byName = Map.groupBy(jobs, ({ name }) => name);
  for (const { key, acknowledged, misuses } of submissions) {
    const found = byName.get(key) ?? [];
    if (found.length > 1) accuse('submitted once', `${key} is ${found.length} jobs`);
    if (acknowledged.size > 1) accuse('submitted once', `${key} was answered with ${acknowledged.size} jobs`);
    for (const id of acknowledged) {
      if (!found.some((job) => job.id === id))
        accuse('acknowledged is kept', `${key} was acknowledged as ${id}, which is gone`);
    }
    const first = acknowledged.size > 0;
    if (first && misuses.includes('SubmitJobPayload')) accuse('misuse changes nothing', `${key} took another input`);
    if (first && found.some(({ spec }) => spec.hyperparams))
      accuse('misuse changes nothing', `${key} has another input`);
  }
  const known = new Set(submissions.map(({ key }) => key));
  for (const { name } of jobs) if (!known.has(name)) accuse('submitted once', `nobody submitted ${name}`);
}

/** From QUEUED along the state machine to one end. */
async function checkHistories(sql: Sql, jobs: readonly JobRow[], accuse: Accuse): Promise<void> {
  type Row = { jobId: string; seq: number; fromState: string | null; toState: string | null };
  const rows = await sql<
    Row[]
  >`select job_id, seq::int, from_state, to_state from event where job_id is not null order by job_id, seq`;
  const byJob = Map.groupBy(rows, ({ jobId }) => jobId);
  for (const job of jobs) {
    if (!ends.includes(job.state)) accuse('no job is stuck', `${job.name} is ${job.state}`);
    const events = byJob.get(job.id) ?? [];
    events.forEach(({ seq }, index) => {
      if (seq !== index + 1) accuse('events are 1 … N', `${job.name} has event ${seq} in place ${index + 1}`);
    });
    let state = 'QUEUED';
    for (const { fromState, toState } of events.filter((event) => event.toState && event.fromState)) {
      const legal = fromState === state && (fromState === toState || moves[state]?.includes(toState ?? ''));
      if (!legal)
        accuse('states follow the machine', `${job.name} went from ${fromState} (was ${state}) to ${toState}`);
      state = toState ?? state;
    }
    if (state !== job.state)
      accuse('states follow the machine', `${job.name} is ${job.state}, its history ends in ${state}`);
  }
}

/** What was stored of an ended attempt has the count and the checksum that its supervisor computed. */
async function checkChecksums(sql: Sql, accuse: Accuse): Promise<void> {
  const alerts = await sql<{ jobId: string; message: string }[]>`
    select job_id, message from event where type = 'ALERT' and message like 'The log of attempt %'`;
  for (const { jobId, message } of alerts) accuse('checksums agree', `${jobId}: ${message}`);
}

/** Never two holders of a job at a time, and the successor is granted after the end. */
function checkLeases(job: JobRow, attempts: readonly AttemptRow[], accuse: Accuse): void {
  attempts.forEach((attempt, index) => {
    const next = attempts[index + 1];
    if (attempt.number !== index + 1) accuse('attempts are 1 … N', `${job.name} has attempt ${attempt.number}`);
    if (!attempt.finishedAt && ends.includes(job.state))
      accuse('one lease a job', `${job.name} ended, attempt ${attempt.number} did not`);
    if (next && !attempt.finishedAt) accuse('one lease a job', `${job.name} has two attempts at a time`);
  });
}

function checkOverlaps(job: JobRow, beats: readonly Beat[], mayOverlap: boolean, accuse: Accuse): void {
  const byPid = [...Map.groupBy(beats, ({ pid, attempt }) => `${attempt} ${pid}`).values()];
  const lives = byPid.map((own) => ({
    attempt: own[0]?.attempt ?? 0,
    from: Math.min(...own.map(({ at }) => at)),
    to: Math.max(...own.map(({ at }) => at)),
  }));
  for (const older of lives) {
    for (const younger of lives) {
      if (older === younger) continue;
      if (older.attempt === younger.attempt && older.from <= younger.from)
        accuse('an attempt is one process', `${job.name} ran attempt ${older.attempt} twice`);
      if (older.attempt >= younger.attempt || mayOverlap) continue;
      const ms = older.to - younger.from;
      if (ms > toleranceMs)
        accuse(
          'no forbidden overlap',
          `${job.name}: attempts ${older.attempt} and ${younger.attempt} ran together for ${ms} ms`,
        );
    }
  }
}

/** Of an honest job the database refuses nothing that it does not refuse of all. */
function checkGaps(job: JobRow, log: readonly LogItem[], accuse: Accuse): void {
  const gaps = log.filter(({ gap }) => gap !== null);
  if (gaps.length > 0)
    accuse('nothing of a bystander is refused', `${job.name} has ${gaps.length} gaps, e.g. ${gaps[0]?.gap}`);
}

/**
 * The lines of an attempt are those that its command printed, from the first on: all of them, when it ended. Returns
 * their numbers in the job's log.
 */
function checkLines(
  job: JobRow,
  submission: Submission,
  attempt: AttemptRow,
  log: readonly LogItem[],
  beats: readonly Beat[],
  accuse: Accuse,
): number[] {
  const printed = log.filter((line) => line.attempt === attempt.number && line.text.startsWith('line '));
  printed.forEach(({ text }, index) => {
    const n = index + 1;
    const expected = `line ${n} ${crc32(`${submission.key}:${n}`).toString(16)}`;
    if (text !== expected)
      accuse('lines are what was printed', `${job.name}.${attempt.number}: line ${n} is "${text}"`);
  });
  const end = beats.find(({ event, attempt: number }) => event === 'end' && number === attempt.number);
  if (attempt.state === 'SUCCEEDED' && printed.length !== submission.lines)
    accuse(
      'nothing is lost',
      `${job.name}.${attempt.number} SUCCEEDED with ${printed.length} of ${submission.lines} lines`,
    );
  if (attempt.state === 'SUCCEEDED' && !end)
    accuse('states are true', `${job.name}.${attempt.number} SUCCEEDED, its command did not end`);
  const last = Math.max(0, ...beats.filter((beat) => beat.attempt === attempt.number).map(({ n }) => n));
  // The witness beats every 50 ms: what was printed after the last beat is not known to it.
  if (printed.length > last + 20)
    accuse(
      'lines are what was printed',
      `${job.name}.${attempt.number} has ${printed.length} lines, ${last} were printed`,
    );
  return printed.map(({ seq }) => seq);
}

export const valueOf = (step: number) => ((step * 37) % 128) / 8 - 4;

/** Windows of an attempt add up to the samples sent: dyadic ones, so that sums are exact. */
async function checkPoints(
  sql: Sql,
  job: JobRow,
  submission: Submission,
  attempt: AttemptRow,
  log: readonly LogItem[],
  accuse: Accuse,
): Promise<number> {
  type Row = { count: number; sum: number; min: number; max: number };
  const [stored] = await sql<Row[]>`
    select coalesce(sum((state ->> 'count')::int), 0)::int as count, coalesce(sum((state ->> 'sum')::float8), 0) as sum,
      min((state ->> 'min')::float8) as min, max((state ->> 'max')::float8) as max
    from metric_window where job_id = ${job.id} and attempt = ${attempt.number} and name = 'train/loss' and seconds = 30`;
  if (!stored) return 0;
  const samples = Array.from({ length: stored.count }, (_, index) => valueOf(2 * (index + 1)));
  const sum = samples.reduce((total, value) => total + value, 0);
  const where = `${job.name}.${attempt.number}`;
  if (stored.sum !== sum)
    accuse('windows equal the samples', `${where}: ${stored.count} points sum up to ${stored.sum}, not ${sum}`);
  if (stored.count > 0 && (stored.min !== Math.min(...samples) || stored.max !== Math.max(...samples)))
    accuse('windows equal the samples', `${where}: from ${stored.min} to ${stored.max}`);
  const expected = Math.floor(submission.lines / 2);
  if (attempt.state === 'SUCCEEDED' && stored.count !== expected)
    accuse('nothing is lost', `${where} SUCCEEDED with ${stored.count} of ${expected} points`);
  const printed = log.filter((line) => line.attempt === attempt.number && line.text.startsWith('line ')).length;
  if (stored.count > printed / 2 + 1)
    accuse('windows equal the samples', `${where}: ${stored.count} points, ${printed} lines`);
  return stored.count;
}
