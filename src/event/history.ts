// Who did what: the events of a project, or of the whole platform, as their readers may see them.
import { and, eq, isNull, sql } from 'drizzle-orm';
import { type Actor, canSee, type TokenScope } from '../actor.ts';
import type { Db } from '../database/database.ts';
import { type Key, keyset } from '../database/keyset.ts';
import { isOneOf } from '../database/rows.ts';
import { type EventType, eventTypes } from './event.ts';
import { event } from './table.ts';

/** An entry of a history. Of an event of a job there is a `JobEvent` too, and two objects never share one id. */
export type Event = Omit<typeof event.$inferSelect, 'type'> & { type: EventType };

/** An event names tokens and secrets: it takes the scope that shows them. All other events take READ. */
const scopeOf: Partial<Record<EventType, TokenScope>> = {
  TOKEN_CREATED: 'ADMIN',
  TOKEN_REVOKED: 'ADMIN',
  SECRET_SET: 'WRITE',
  SECRET_DELETED: 'WRITE',
};

/** Types of the project's events, or for null of the platform's, that the actor may see. */
export function visibleTypes(actor: Actor, projectId: string | null): EventType[] {
  if (projectId === null) return actor.projectId === null && actor.scopes.has('ADMIN') ? [...eventTypes] : [];
  if (!canSee(actor, projectId)) return [];
  return eventTypes.filter((type) => actor.scopes.has(scopeOf[type] ?? 'READ'));
}

/** Place in a history: the transaction; within it events of jobs by number, which ids do not keep. */
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

/** Events of a project, or for null of the platform, of these types in the order of their transactions, one more than the limit. */
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

/** Entries by id. */
export async function loadEvents(db: Db, ids: readonly string[]): Promise<Map<string, Event>> {
  const rows = await db
    .select()
    .from(event)
    .where(isOneOf(event.id, ids.map(rowId)));
  return new Map(rows.map(toEntry).map((entry) => [entry.id, entry]));
}
