// Writes jobs, under the lock of each, and reads them. `moveJob` is the only place where the state
// of a job changes.
import { and, eq, getTableColumns, sql } from 'drizzle-orm';
import { type Actor, canSee } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { insertRows, isOneOf } from '../database/rows.ts';
import { notFound } from '../errors.ts';
import { type NewEvent, recordEvent, recordEvents } from '../event/event.ts';
import { notifyProject } from '../live/changes.ts';
import type { Tx } from '../live/commit.ts';
import { isTerminal, type JobState, requireMove, type StateReason } from './state.ts';
import { job, jobStream } from './table.ts';

export type Job = typeof job.$inferSelect;

/**
 * A job that is not written yet: its row, without what the database fills in, and its first event.
 */
export type JobDraft = { row: typeof job.$inferInsert; event: NewEvent };

/**
 * SQL: the time of the database's clock at which the job times out in the queue; null when its spec
 * sets no `queue_timeout_seconds`.
 */
const queueEnd = sql`${now} + (effective ->> 'queue_timeout_seconds')::float8 * interval '1 s'`;

/**
 * Writes at least one new job, each with its row in `job_stream` and its first event. Returns the
 * jobs in any order.
 */
export async function insertJobs(tx: Tx, drafts: readonly JobDraft[]): Promise<Job[]> {
  const rows = drafts.map(({ row }) => row);
  const made = tx
    .$with('made', getTableColumns(job))
    .as(sql`${insertRows(job, rows, { queueExpiresAt: queueEnd })} returning *`);
  const streams = rows.map(({ id }) => ({ jobId: id, event: 1 }));
  // The statements are sent at once and run in this order: rows that refer to a job come after it.
  const [created] = await Promise.all([
    tx.with(made).select().from(made).execute(),
    tx.execute(insertRows(jobStream, streams)).execute(),
    recordEvents(
      tx,
      drafts.map(({ event }) => event),
    ),
  ]);
  tx.notify(channels.work);
  return created;
}

/**
 * A locked job, with the last number of each of its streams. `work` of `changeJob` assigns to both
 * objects, and `changeJob` writes what differs.
 */
export type LockedJob = { job: Job; stream: typeof jobStream.$inferSelect };

/**
 * Locks the job, lets `work` change it, writes what changed, and notifies followers after the
 * commit. Returns the result of `work`; null for an unknown job. A transaction that changes several
 * jobs calls it in the order of their ids, so that no two transactions deadlock.
 */
export async function changeJob<T>(tx: Tx, jobId: string, work: (locked: LockedJob) => Promise<T>): Promise<T | null> {
  // Both queries are sent at once. The second runs once the first has the lock, so it sees all that
  // was committed before.
  const [[stream], [row]] = await Promise.all([
    tx.select().from(jobStream).where(eq(jobStream.jobId, jobId)).for('update').execute(),
    tx.select().from(job).where(eq(job.id, jobId)).execute(),
  ]);
  if (!stream || !row) return null;
  const locked: LockedJob = { job: { ...row }, stream: { ...stream } };
  const result = await work(locked);

  const touched = Object.entries(locked.job).filter(([key, value]) => value !== row[key as keyof Job]);
  if (touched.length > 0 || locked.stream.event !== stream.event) {
    locked.stream.revision++;
    // `greatest`, since a transaction that waited for the lock may have a smaller id than the one
    // before it.
    const changed = sql`greatest(pg_current_xact_id(), ${job.changed})`;
    const [written] = await tx
      .update(job)
      .set({ ...Object.fromEntries(touched), updatedAt: now, changed })
      .where(eq(job.id, jobId))
      .returning({ changed: job.changed });
    if (written) notifyProject(tx, locked.job.projectId, written.changed);
  }
  const { line, event, window, revision, logBytes, metricNames, metricRefused } = locked.stream;
  const moved = line - stream.line + event - stream.event + window - stream.window + revision - stream.revision;
  if (moved === 0) return result;
  const streams = { line, event, window, revision, logBytes, metricNames, metricRefused };
  await tx.update(jobStream).set(streams).where(eq(jobStream.jobId, jobId));
  tx.notify(channels.job(jobId), { line, event, window, revision, end: Number(isTerminal(locked.job.state)) });
  return result;
}

/** Writes an event of a locked job, with the next event number of the job. */
export async function addEvent(
  tx: Tx,
  locked: LockedJob,
  entry: Omit<NewEvent, 'projectId' | 'jobId' | 'seq'>,
): Promise<void> {
  const seq = ++locked.stream.event;
  const { id: jobId, projectId, changed } = locked.job;
  await recordEvent(tx, { ...entry, projectId, jobId, seq }, changed);
}

/**
 * Moves a locked job to another state, with its reason, its times and an event STATE_CHANGED.
 * Throws an Error for a move that the state machine does not have.
 */
export async function moveJob(
  tx: Tx,
  locked: LockedJob,
  to: JobState,
  change: { reason: StateReason | null; at: Date; actorId?: string | null },
): Promise<void> {
  const { job: row } = locked;
  const from = row.state;
  requireMove(from, to);
  row.state = to;
  row.reasonCode = change.reason?.code ?? null;
  row.reasonMessage = change.reason?.message ?? null;
  row.reasonHint = change.reason?.hint ?? null;
  row.logExcerpt = change.reason?.logExcerpt ?? [];
  if (to === 'RUNNING') row.startedAt ??= change.at;
  if (isTerminal(to)) row.finishedAt = change.at;
  await addEvent(tx, locked, {
    type: 'STATE_CHANGED',
    actorId: change.actorId ?? null,
    message: change.reason?.message ?? `${from} → ${to}`,
    fromState: from,
    toState: to,
  });
}

/** Returns the job; null when it does not exist or the actor may not see it. */
export async function getJob(db: Db, actor: Actor, id: string): Promise<Job | null> {
  const row = (await loadJobs(db, [id])).get(id);
  return row && canSee(actor, row.projectId) ? row : null;
}

/**
 * Like `getJob`, but throws NOT_FOUND instead of returning null. `path` is the place of the id in
 * the request.
 */
export async function requireJob(db: Db, actor: Actor, id: string, path?: string[]): Promise<Job> {
  const row = await getJob(db, actor, id);
  if (!row) throw notFound('Job', id, path);
  return row;
}

/**
 * A job with the number of its changes and the last number of each of its streams, all as of one
 * moment.
 */
export type JobReading = { job: Job; revision: number; line: number; event: number; window: number };

export async function readJob(db: Db, id: string): Promise<JobReading> {
  const row = await findJob(db, id);
  if (!row) throw notFound('Job', id);
  return row;
}

/** Like `readJob`, but returns null for an unknown job. */
export async function findJob(db: Db, id: string): Promise<JobReading | null> {
  if (id.includes('\0')) return null;
  const [row] = await db.select().from(job).innerJoin(jobStream, eq(jobStream.jobId, job.id)).where(eq(job.id, id));
  if (!row) return null;
  const { revision, line, event, window } = row.job_stream;
  return { job: row.job, revision, line, event, window };
}

/** Returns the jobs with these ids, by id. Checks no permission: the caller does. */
export async function loadJobs(db: Db, ids: readonly string[]): Promise<Map<string, Job>> {
  const usableIds = ids.filter((id) => !id.includes('\0'));
  const rows = usableIds.length > 0 ? await db.select().from(job).where(isOneOf(job.id, usableIds)) : [];
  return new Map(rows.map((row) => [row.id, row]));
}

/** Returns the job with this number; null for none. Checks no permission: the caller does. */
export async function getJobByNumber(db: Db, projectId: string, number: number): Promise<Job | null> {
  const [row] = await db
    .select()
    .from(job)
    .where(and(eq(job.projectId, projectId), eq(job.number, number)));
  return row ?? null;
}
