// Jobs: how they are written, and the only place where a job's state changes.
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

/** What is written of a new job: its row, without what the database fills in, and its first event. */
export type JobDraft = { row: typeof job.$inferInsert; event: NewEvent };

/** When a queued job is given up, by the database's clock; null for never. */
const queueEnd = sql`${now} + (effective ->> 'queue_timeout_seconds')::float8 * interval '1 s'`;

/** Writes new jobs, each with its stream and its first event; at least one. They come back in any order. */
export async function insertJobs(tx: Tx, drafts: readonly JobDraft[]): Promise<Job[]> {
  const rows = drafts.map(({ row }) => row);
  const made = tx
    .$with('made', getTableColumns(job))
    .as(sql`${insertRows(job, rows, { queueExpiresAt: queueEnd })} returning *`);
  const streams = rows.map(({ id }) => ({ jobId: id, event: 1 }));
  // Sent together, in this order: what refers to the jobs comes behind them.
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

/** A job whose row is locked, with the last numbers of its streams. Change it in place; `changeJob` writes it back. */
export type LockedJob = { job: Job; stream: typeof jobStream.$inferSelect };

/**
 * Locks the job, lets `work` change it, writes back what changed, and tells the followers. Whoever needs several jobs
 * calls it in order of their ids. Null when there is no such job.
 */
export async function changeJob<T>(tx: Tx, jobId: string, work: (locked: LockedJob) => Promise<T>): Promise<T | null> {
  // Sent together: the second begins once the first has its lock, and sees what was committed by then.
  const [[stream], [found]] = await Promise.all([
    tx.select().from(jobStream).where(eq(jobStream.jobId, jobId)).for('update').execute(),
    tx.select().from(job).where(eq(job.id, jobId)).execute(),
  ]);
  if (!stream || !found) return null;
  const locked: LockedJob = { job: { ...found }, stream: { ...stream } };
  const result = await work(locked);

  const touched = Object.entries(locked.job).filter(([key, value]) => value !== found[key as keyof Job]);
  if (touched.length > 0 || locked.stream.event !== stream.event) {
    locked.stream.revision++;
    const changed = sql`greatest(pg_current_xact_id(), ${job.changed})`; // never down: see recordEvent
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

/** Writes an event of a locked job, with the job's next event number. */
export async function addEvent(
  tx: Tx,
  locked: LockedJob,
  entry: Omit<NewEvent, 'projectId' | 'jobId' | 'seq'>,
): Promise<void> {
  const seq = ++locked.stream.event;
  const { id: jobId, projectId, changed } = locked.job;
  await recordEvent(tx, { ...entry, projectId, jobId, seq }, changed);
}

/** Moves a locked job to another state, with its reason, its times and an event. The only place where states change. */
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

/** The job, or null when there is none or the actor may not see it. */
export async function getJob(db: Db, actor: Actor, id: string): Promise<Job | null> {
  const found = (await loadJobs(db, [id])).get(id);
  return found && canSee(actor, found.projectId) ? found : null;
}

/** Like `getJob`; throws NOT_FOUND for null. */
export async function requireJob(db: Db, actor: Actor, id: string, path?: string[]): Promise<Job> {
  const found = await getJob(db, actor, id);
  if (!found) throw notFound('Job', id, path);
  return found;
}

/** A job with the number of its changes so far, and how far its streams have come, all of one moment. */
export type JobReading = { job: Job; revision: number; line: number; event: number; window: number };

export async function readJob(db: Db, id: string): Promise<JobReading> {
  const found = await findJob(db, id);
  if (!found) throw notFound('Job', id);
  return found;
}

/** Like `readJob`; null when there is none. */
export async function findJob(db: Db, id: string): Promise<JobReading | null> {
  if (id.includes('\0')) return null;
  const [found] = await db.select().from(job).innerJoin(jobStream, eq(jobStream.jobId, job.id)).where(eq(job.id, id));
  if (!found) return null;
  const { revision, line, event, window } = found.job_stream;
  return { job: found.job, revision, line, event, window };
}

/** Jobs by id, for callers who may see them. */
export async function loadJobs(db: Db, ids: readonly string[]): Promise<Map<string, Job>> {
  const wanted = ids.filter((id) => !id.includes('\0'));
  const rows = wanted.length > 0 ? await db.select().from(job).where(isOneOf(job.id, wanted)) : [];
  return new Map(rows.map((row) => [row.id, row]));
}

/** The job with this number, for callers who may see the project. */
export async function getJobByNumber(db: Db, projectId: string, number: number): Promise<Job | null> {
  const [found] = await db
    .select()
    .from(job)
    .where(and(eq(job.projectId, projectId), eq(job.number, number)));
  return found ?? null;
}
