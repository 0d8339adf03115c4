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
  /** One sentence for people. */
  message: string;
  projectId: string | null;
  jobId?: string;
  /** Number within the job; with `jobId` always. */
  seq?: number;
  actorId?: string | null;
  fromState?: string;
  toState?: string;
  data?: Record<string, unknown>;
};

/**
 * Writes an event and notifies followers of the project. `since` is the job's last `changed`, read under the job's lock. A
 * transaction may have begun before the one whose lock it waited for; `since` keeps its event from sorting first.
 */
export async function recordEvent(tx: Tx, entry: NewEvent, since?: string): Promise<void> {
  const changed = since === undefined ? {} : { changed: sql`greatest(pg_current_xact_id(), ${since}::xid8)` };
  const row = { id: newId('evt'), ...entry, ...changed };
  const [written] = await tx.insert(event).values(row).returning({ changed: event.changed });
  if (written && entry.projectId !== null) notifyProject(tx, entry.projectId, written.changed);
}

/** Writes one event or more of jobs that are new in this transaction, or of no job. */
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

/** Events of a job by number, of these types, one more than the limit. */
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

/** Number of the last event of a job before its `last` newest ones of these types; 0 when there are no more. */
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

/** Place in the events of a project: the transaction, and within it job and number. */
export type ProjectPosition = readonly [changed: number, jobId: string, seq: number];

const projectOrder = [event.changed, event.jobId, event.seq] as const;
const positionOf = (row: Row): ProjectPosition => [Number(row.changed), row.jobId ?? '', row.seq ?? 0];

export type ProjectReading = {
  events: JobEvent[];
  /** Up to here the stream was read. */
  position: ProjectPosition;
  /** There is more below the horizon. */
  more: boolean;
  /** There are events that only a later horizon will let be read. */
  pending: boolean;
};

/**
 * Events of a project's jobs after a position, below `horizon`, which was read before, and up to `until` where one is given;
 * up to `limit`, of any type.
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
  const at = a.findIndex((part, index) => part !== b[index]);
  return at >= 0 && (a[at] ?? 0) > (b[at] ?? 0);
}

/** Place before a project's `last` newest readable events of these types; its beginning when there are no more. */
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

/** Events of jobs, by id. */
export async function loadJobEvents(db: Db, ids: readonly string[]): Promise<Map<string, JobEvent>> {
  const rows = await db.select().from(event).where(isOneOf(event.id, ids));
  return new Map(rows.filter(isJobEvent).map((row) => [row.id, row]));
}
