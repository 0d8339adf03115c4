// An event is written in the transaction of the change that it reports, and never updated. Events of one job are read by
// their number. Events of a project are read by the transaction that wrote them, because jobs of a project share no lock
// under which they could be numbered.
import { and, eq, isNotNull, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { insertRows, isOneOf } from '../database/rows.ts';
import { newId } from '../id.ts';
import { aheadOfServer, notifyProject } from '../live/changes.ts';
import type { Tx } from '../live/commit.ts';
import { event } from './table.ts';

/** Types of a job's events. */
export const jobEventTypes = [
  'SUBMITTED',
  'STATE_CHANGED',
  'ATTEMPT_STARTED',
  'ATTEMPT_FINISHED',
  'CHECKPOINT',
  'ALERT',
  'EDITED',
] as const;
export type JobEventType = (typeof jobEventTypes)[number];
/** Types of all events of a project, or of the whole platform. */
export const eventTypes = [
  ...jobEventTypes,
  'PROJECT_CREATED',
  'PROJECT_UPDATED',
  'TOKEN_CREATED',
  'TOKEN_REVOKED',
  'POLICY_SET',
  'SCHEDULE_CREATED',
  'SCHEDULE_UPDATED',
  'SCHEDULE_DELETED',
  'SECRET_SET',
  'SECRET_DELETED',
  'DEFAULTS_PUBLISHED',
  'DEFAULTS_CHOSEN',
] as const;
export type EventType = (typeof eventTypes)[number];

export type NewEvent = {
  type: EventType;
  /** One sentence for users. */
  message: string;
  projectId: string | null;
  jobId?: string;
  /** Number within the job; present whenever `jobId` is. */
  seq?: number;
  actorId?: string | null;
  fromState?: string;
  toState?: string;
  data?: Record<string, unknown>;
};

/**
 * Writes an event and notifies followers of the project. `since` is the job's last `changed`, read
 * under the job's lock: a transaction that began before the one whose lock it waited for has a
 * smaller id, and `since` keeps its event from sorting before the other's.
 */
export async function recordEvent(tx: Tx, entry: NewEvent, since?: string): Promise<void> {
  const changed = since === undefined ? {} : { changed: sql`greatest(pg_current_xact_id(), ${since}::xid8)` };
  const row = { id: newId('evt'), ...entry, ...changed };
  const [written] = await tx.insert(event).values(row).returning({ changed: event.changed });
  if (written && entry.projectId !== null) notifyProject(tx, entry.projectId, written.changed);
}

/** Writes events of jobs that are new in this transaction, or of no job; at least one. */
export async function recordEvents(tx: Tx, entries: readonly NewEvent[]): Promise<void> {
  const rows = entries.map((entry) => ({ id: newId('evt'), ...entry }));
  const [written] = await tx.execute<{ changed: string }>(sql`${insertRows(event, rows)} returning changed`);
  const projects = new Set(entries.flatMap(({ projectId }) => projectId ?? []));
  if (written) for (const projectId of projects) notifyProject(tx, projectId, written.changed);
}

/** Estimated memory of an event without its texts, in bytes. */
export const eventRowBytes = 1_000;

/** Estimated memory of an event, in bytes. */
export function eventBytes({ message, data }: { message: string; data: unknown }): number {
  return eventRowBytes + message.length + JSON.stringify(data ?? null).length;
}

/** Assigns events that came with a dump of another server to this transaction. Events of one job keep their order. */
export async function renumberEvents(tx: Tx): Promise<void> {
  await tx
    .update(event)
    .set({ changed: sql`pg_current_xact_id()` })
    .where(aheadOfServer(event.changed));
}

type Row = typeof event.$inferSelect;
export type JobEvent = Row & { type: JobEventType; projectId: string; jobId: string; seq: number };

function isJobEvent(row: Row): row is JobEvent {
  return row.jobId !== null && row.projectId !== null && jobEventTypes.some((type) => type === row.type);
}

/** Lists events of a job by number, of these types, one more than the limit when there are more. */
export async function listJobEvents(
  db: Db,
  jobId: string,
  page: { types: readonly JobEventType[]; limit: number; backward: boolean; after?: number; before?: number },
): Promise<JobEvent[]> {
  const { types, limit, backward, after, before } = page;
  const order = keyset([event.seq], {
    descending: false,
    backward,
    limit,
    ...(after === undefined ? {} : { after: [after] }),
    ...(before === undefined ? {} : { before: [before] }),
  });
  const rows = await db
    .select()
    .from(event)
    .where(and(eq(event.jobId, jobId), isOneOf(event.type, types), ...order.where))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  return order.inOrder(rows).filter(isJobEvent);
}

/**
 * Returns the number after which the `last` newest events of these types follow: that of the event
 * before them, or 0 when the job has no more.
 */
export async function eventBeforeLast(
  db: Db,
  jobId: string,
  { types, last }: { types: readonly JobEventType[]; last: number },
): Promise<number> {
  const [row] = await db
    .select({ seq: event.seq })
    .from(event)
    .where(and(eq(event.jobId, jobId), isOneOf(event.type, types)))
    .orderBy(sql`${event.seq} desc`)
    .offset(last)
    .limit(1);
  return row?.seq ?? 0;
}

/** Position in the events of a project: the transaction, then job and number within it. */
export type ProjectPosition = readonly [changed: number, jobId: string, seq: number];

const projectOrder = [event.changed, event.jobId, event.seq] as const;
const positionOf = (row: Row): ProjectPosition => [Number(row.changed), row.jobId ?? '', row.seq ?? 0];

export type ProjectReading = {
  events: JobEvent[];
  /** Position up to which the stream was read. */
  position: ProjectPosition;
  /** Whether more events can be read now. */
  more: boolean;
  /** Whether there are events above the horizon, which can be read only later. */
  pending: boolean;
};

/**
 * Reads events of a project's jobs, of any type, after a position: those below `horizon`, which the
 * caller has read before, and up to `until` when it is given; at most `limit`.
 */
export async function readProjectEvents(
  db: Db,
  projectId: string,
  page: { after: ProjectPosition; until: ProjectPosition | null; horizon: number; limit: number },
): Promise<ProjectReading> {
  const { after, until, horizon, limit } = page;
  const order = keyset(projectOrder, { descending: false, backward: false, limit, after });
  const rows = await db
    .select()
    .from(event)
    .where(and(eq(event.projectId, projectId), isNotNull(event.jobId), ...order.where))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  const readable = rows.filter((row) => Number(row.changed) < horizon);
  const within = until === null ? readable : readable.filter((row) => !isBeyond(positionOf(row), until));
  const kept = within.slice(0, limit);
  const last = kept.at(-1);
  const end = last ? positionOf(last) : after;
  return {
    events: kept.filter(isJobEvent),
    position: within.length > limit ? end : (until ?? end),
    more: readable.length > kept.length,
    pending: readable.length < rows.length,
  };
}

function isBeyond(a: ProjectPosition, b: ProjectPosition): boolean {
  const difference = a.findIndex((part, index) => part !== b[index]);
  return difference >= 0 && (a[difference] ?? 0) > (b[difference] ?? 0);
}

/**
 * Returns the position before a project's `last` newest readable events of these types; the
 * beginning when there are no more.
 */
export async function projectBeforeLast(
  db: Db,
  projectId: string,
  { types, last, horizon }: { types: readonly JobEventType[]; last: number; horizon: number },
): Promise<ProjectPosition> {
  const order = keyset(projectOrder, { descending: false, backward: true, limit: 0, before: [horizon, '', 0] });
  const [row] = await db
    .select()
    .from(event)
    .where(and(eq(event.projectId, projectId), isOneOf(event.type, types), ...order.where))
    .orderBy(...order.orderBy)
    .offset(last)
    .limit(1);
  return row ? positionOf(row) : [0, '', 0];
}

/** Loads events of jobs by their ids. */
export async function loadJobEvents(db: Db, ids: readonly string[]): Promise<Map<string, JobEvent>> {
  const rows = await db.select().from(event).where(isOneOf(event.id, ids));
  return new Map(rows.filter(isJobEvent).map((row) => [row.id, row]));
}
