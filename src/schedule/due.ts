// Decides due times, each once: it is started or skipped in one transaction, which also moves the
// schedule on. Any number of gateways do this at once. A gateway locks the row of a schedule while
// it decides, and the others pass over that schedule.
import { and, asc, eq, isNull, lte, not } from 'drizzle-orm';
import { stopJob } from '../attempt/cancel.ts';
import { passingFault } from '../database/database.ts';
import { isOneOf } from '../database/rows.ts';
import { Refusal } from '../errors.ts';
import { changeJob, type Job } from '../job/job.ts';
import type { StateReason } from '../job/state.ts';
import { commit, type Store, type Tx } from '../live/commit.ts';
import { withJobNumber } from '../submission/number.ts';
import { submitWithin } from '../submission/submit.ts';
import { openCalendar } from './calendar.ts';
import { isDecided, recordSkip, type SkipReason, skipUntil } from './run.ts';
import { actorOf, listActiveJobs, readClock, type Schedule } from './schedule.ts';
import { schedule, scheduleRun } from './table.ts';

/** Upper bounds of one step: schedules, and due times of each schedule. */
const maxSchedules = 50;
const maxDueTimes = 20;
/**
 * Pause of a schedule whose decision threw an unexpected error, so that it does not stop the
 * others.
 */
const holdMs = 60_000;

export type DueOptions = {
  /** Set by tests; the database's clock when absent. */
  now?: Date;
  /** Ends the step between two due times. */
  signal?: AbortSignal;
  /**
   * Ids of schedules that failed with an unexpected error, with the time until which they pause, in
   * milliseconds since the Unix epoch. The caller keeps the map from step to step.
   */
  held?: Map<string, number>;
  /** Receives each unexpected error. */
  report?: (error: unknown, scheduleId: string) => void;
};

/**
 * Decides due times, the longest overdue schedules first. Returns true when it decided some, since
 * there may be more.
 */
export async function runDueSchedules(store: Store, options: DueOptions = {}): Promise<boolean> {
  const { held = new Map<string, number>(), signal, report } = options;
  const { db } = store.database;
  const clock = options.now ?? (await readClock(db));
  for (const [id, until] of held) if (until <= clock.getTime()) held.delete(id);
  const due = await db
    .select({ id: schedule.id, projectId: schedule.projectId })
    .from(schedule)
    .where(and(isNull(schedule.pausedAt), lte(schedule.nextDueAt, clock), not(isOneOf(schedule.id, held.keys()))))
    .orderBy(asc(schedule.nextDueAt), asc(schedule.id))
    .limit(maxSchedules);
  let decided = 0;
  for (const schedule of due) {
    try {
      for (let remaining = maxDueTimes; remaining > 0 && !signal?.aborted; remaining--) {
        if (!(await decideNext(store, schedule, options.now))) break;
        decided++;
      }
    } catch (error) {
      if (passingFault(error) || !report) throw error;
      held.set(schedule.id, clock.getTime() + holdMs);
      report(error, schedule.id);
    }
  }
  return decided > 0;
}

/**
 * Decides the next due time of a schedule in a transaction of its own. Returns false when none is
 * due or another gateway decides it.
 */
async function decideNext(store: Store, schedule: { id: string; projectId: string }, now?: Date): Promise<boolean> {
  const isStarted = (decision: Decision | null) => decision === 'STARTED';
  const decide = (number: number) => commit(store, (tx) => decideDue(tx, schedule.id, { now, number }));
  return (await withJobNumber(store.database, schedule.projectId, isStarted, decide)) !== null;
}

type Decision = 'STARTED' | 'SKIPPED';

/**
 * Decides the next due time of the schedule and moves the schedule on. Returns null when none is
 * due or its row is locked.
 */
export async function decideDue(
  tx: Tx,
  id: string,
  { now, number }: { now?: Date | undefined; number: number },
): Promise<Decision | null> {
  const clock = now ?? (await readClock(tx));
  const [row] = await tx
    .select()
    .from(schedule)
    .where(and(eq(schedule.id, id), isNull(schedule.pausedAt), lte(schedule.nextDueAt, clock)))
    .for('update', { skipLocked: true });
  if (!row?.nextDueAt) return null;
  const dueAt = row.nextDueAt;
  const oldest = new Date(clock.getTime() - row.startingDeadlineSeconds * 1000);
  if (dueAt < oldest) {
    const message = `It was due more than ${row.startingDeadlineSeconds} s before a gateway could start it.`;
    await moveOn(tx, row, await skipUntil(tx, row, oldest, { code: 'MISSED', message }, clock));
    return 'SKIPPED';
  }
  await moveOn(tx, row, dueAt);
  if (await isDecided(tx, row, dueAt)) return 'SKIPPED';
  const outcome = await startJob(tx, row, { dueAt, number });
  if ('code' in outcome) {
    await recordSkip(tx, row, { dueAt, lastDueAt: dueAt }, outcome, clock);
    return 'SKIPPED';
  }
  const started = { scheduleId: row.id, dueAt, lastDueAt: dueAt, jobId: outcome.id, decidedAt: clock };
  await tx.insert(scheduleRun).values(started);
  return 'STARTED';
}

async function moveOn(tx: Tx, row: Schedule, decided: Date): Promise<void> {
  const nextDueAt = openCalendar(row).after(decided);
  await tx.update(schedule).set({ nextDueAt }).where(eq(schedule.id, row.id));
}

/** Submits the job of a due time, or returns the reason to skip it. */
async function startJob(
  tx: Tx,
  row: Schedule,
  { dueAt, number }: { dueAt: Date; number: number },
): Promise<Job | SkipReason> {
  const active = row.onOverlap === 'ALLOW' ? [] : await listActiveJobs(tx, row.id);
  const [previous] = active;
  if (previous && row.onOverlap === 'FORBID') {
    const message = `Job ${previous.projectId}/${previous.number} of the schedule had not ended.`;
    return { code: 'PREVIOUS_RUNNING', message };
  }
  const template = { scheduleId: row.id, defaultsVersion: row.defaultsVersion, dueAt };
  let started: Job;
  try {
    started = await submitWithin(tx, actorOf(row), { spec: row.spec, at: [], template }, number);
  } catch (error) {
    // `submitWithin` refuses before it writes, so the transaction can go on.
    if (error instanceof Refusal) return { code: codeOf(error), message: error.message };
    throw error;
  }
  const reason: StateReason = {
    code: 'REPLACED_BY_SCHEDULE',
    message: `Replaced by job ${started.projectId}/${started.number}.`,
  };
  for (const { id } of active) {
    await changeJob(tx, id, (locked) => stopJob(tx, locked, { reason, actorId: row.id }));
  }
  return started;
}

function codeOf({ code }: Refusal): SkipReason['code'] {
  return code === 'POLICY_VIOLATION' || code === 'INVALID_STATE' ? code : 'INVALID_INPUT';
}
