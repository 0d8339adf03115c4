// The history of a project, or of the whole platform: all events that the reader may see.
import { and, eq, isNull, sql } from 'drizzle-orm';
import { type Actor, canSee, type TokenScope } from '../actor.ts';
import type { Db } from '../database/database.ts';
import { type Key, keyset } from '../database/keyset.ts';
import { isOneOf } from '../database/rows.ts';
import { type EventType, eventTypes } from './event.ts';
import { event } from './table.ts';

/**
 * An entry of a history. An event of a job is also a `JobEvent` with an id of its own, since two
 * objects never share one id.
 */
export type Event = Omit<typeof event.$inferSelect, 'type'> & { type: EventType };

/**
 * Scopes to see events that name tokens or secrets: the scope that shows those. All other events
 * need READ.
 */
const scopeOf: Partial<Record<EventType, TokenScope>> = {
  TOKEN_CREATED: 'ADMIN',
  TOKEN_REVOKED: 'ADMIN',
  SECRET_SET: 'WRITE',
  SECRET_DELETED: 'WRITE',
};

/** Returns the types of events of a project (null: of the platform) that the actor may see. */
export function visibleTypes(actor: Actor, projectId: string | null): EventType[] {
  if (projectId === null) return actor.projectId === null && actor.scopes.has('ADMIN') ? [...eventTypes] : [];
  if (!canSee(actor, projectId)) return [];
  return eventTypes.filter((type) => actor.scopes.has(scopeOf[type] ?? 'READ'));
}

/**
 * Position in a history: the transaction; within it, job and number, since ids do not keep that
 * order.
 */
export type HistoryPosition = readonly [changed: number, jobId: string, seq: number, id: string];

const historyOrder: Key[] = [
  event.changed,
  { expression: sql`coalesce(${event.jobId}, '')`, type: 'text' },
  { expression: sql`coalesce(${event.seq}, 0)`, type: 'bigint' },
  event.id,
];

export function historyPosition(row: Event): HistoryPosition {
  return [Number(row.changed), row.jobId ?? '', row.seq ?? 0, rowId(row.id)];
}

const entryId = (id: string) => id.replace(/^evt_/, 'pev_');
const rowId = (id: string) => id.replace(/^pev_/, 'evt_');

function toEntry(row: typeof event.$inferSelect): Event {
  return { ...row, id: entryId(row.id), type: row.type as EventType };
}

/**
 * Lists events of a project (null: of the platform), of these types, in the order of their
 * transactions, one more than the limit when there are more.
 */
export async function listEvents(
  db: Db,
  projectId: string | null,
  page: {
    types: readonly EventType[];
    limit: number;
    backward: boolean;
    after?: HistoryPosition;
    before?: HistoryPosition;
  },
): Promise<Event[]> {
  const order = keyset(historyOrder, { ...page, descending: false });
  const owner = projectId === null ? isNull(event.projectId) : eq(event.projectId, projectId);
  const rows = await db
    .select()
    .from(event)
    .where(and(owner, isOneOf(event.type, page.types), ...order.where))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  return order.inOrder(rows).map(toEntry);
}

/** Loads entries by their ids. */
export async function loadEvents(db: Db, ids: readonly string[]): Promise<Map<string, Event>> {
  const rows = await db
    .select()
    .from(event)
    .where(isOneOf(event.id, ids.map(rowId)));
  return new Map(rows.map(toEntry).map((entry) => [entry.id, entry]));
}
