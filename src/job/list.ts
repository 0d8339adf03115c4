// Lists of jobs: the conditions of a filter, the three orders, and the position of a job in each,
// which a cursor holds.
import { and, arrayContains, eq, gte, ilike, lt, or, sql, type SQL } from 'drizzle-orm';
import type { Actor } from '../actor.ts';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { isOneOf } from '../database/rows.ts';
import type { Job } from './job.ts';
import type { JobState } from './state.ts';
import { job } from './table.ts';

export type JobFilter = {
  projectIds?: string[] | null;
  states?: JobState[] | null;
  model?: string | null;
  tags?: string[] | null;
  scheduleId?: string | null;
  search?: string | null;
  createdAfter?: Date | null;
  createdBefore?: Date | null;
  submittedByMe?: boolean | null;
};

/** Columns of each order. The last one is the id, so that no two jobs share a position. */
const orders = {
  CREATED_AT: [job.createdAt, job.id],
  UPDATED_AT: [job.updatedAt, job.id],
  PRIORITY: [job.priority, job.createdAt, job.id],
} as const;
export type JobOrderField = keyof typeof orders;

/** Returns the position of a job in an order, as a cursor holds it, e.g. `[createdAt, id]`. */
export function jobPosition(row: Job, field: JobOrderField): (string | number)[] {
  if (field === 'PRIORITY') return [row.priority, row.createdAt.toISOString(), row.id];
  return [(field === 'CREATED_AT' ? row.createdAt : row.updatedAt).toISOString(), row.id];
}

/** Whether the decoded content of a cursor, which is unchecked JSON, is a position in the order. */
export function isJobPosition(position: readonly unknown[], field: JobOrderField): boolean {
  const parts = field === 'PRIORITY' ? position.slice(1) : position;
  const [time, id] = parts;
  if (parts.length !== 2 || typeof time !== 'string' || typeof id !== 'string') return false;
  if (field === 'PRIORITY' && !(Number.isInteger(position[0]) && Math.abs(Number(position[0])) <= 100)) return false;
  return /^2\d{3}-/.test(time) && !Number.isNaN(Date.parse(time)) && new Date(time).toISOString() === time;
}

export type JobsRequest = {
  filter: JobFilter;
  field: JobOrderField;
  descending: boolean;
  limit: number;
  backward: boolean;
  after?: readonly unknown[] | undefined;
  before?: readonly unknown[] | undefined;
};

/**
 * Lists jobs that the actor can see and that match the filter: up to `limit` and one more, which
 * tells that another page follows.
 */
export async function listJobs(db: Db, actor: Actor, options: JobsRequest): Promise<Job[]> {
  if (!actor.scopes.has('READ')) return [];
  const order = keyset(orders[options.field], options);
  const rows = await db
    .select()
    .from(job)
    .where(and(...matching(actor, options.filter), ...order.where))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  return order.inOrder(rows);
}

/** Counts the jobs that the actor can see and that match the filter. */
export async function countJobs(db: Db, actor: Actor, filter: JobFilter): Promise<number> {
  if (!actor.scopes.has('READ')) return 0;
  return db.$count(job, and(...matching(actor, filter)));
}

function matching(actor: Actor, filter: JobFilter): SQL[] {
  const conditions = jobConditions(actor, filter);
  return [...conditions.always, ...conditions.now];
}

/**
 * Returns the conditions of a filter in two lists. `always` tests fields that never change, e.g.
 * the project; `now` tests fields that do, e.g. the state: a job may stop matching it.
 */
export function jobConditions(actor: Actor, filter: JobFilter): { always: SQL[]; now: SQL[] } {
  const present = (conditions: (SQL | undefined)[]) => conditions.filter((condition) => condition !== undefined);
  return {
    always: present([
      actor.projectId === null ? undefined : eq(job.projectId, actor.projectId),
      filter.projectIds ? isOneOf(job.projectId, filter.projectIds) : undefined,
      filter.model ? eq(job.model, filter.model) : undefined,
      filter.scheduleId ? eq(job.scheduleId, filter.scheduleId) : undefined,
      filter.createdAfter ? gte(job.createdAt, filter.createdAfter) : undefined,
      filter.createdBefore ? lt(job.createdAt, filter.createdBefore) : undefined,
      filter.submittedByMe ? eq(job.submittedBy, actor.tokenId) : undefined,
    ]),
    now: present([
      filter.states ? isOneOf(job.state, filter.states) : undefined,
      filter.tags?.length ? arrayContains(job.tags, filter.tags) : undefined,
      filter.search ? containing(filter.search) : undefined,
    ]),
  };
}

/**
 * Condition that a text field or a tag contains the text, ignoring case. Escapes `%`, `_` and `\`,
 * which LIKE would take as patterns.
 */
function containing(search: string): SQL | undefined {
  const pattern = `%${search.replace(/[\\%_]/g, '\\$&')}%`;
  const tags = sql`array_to_string(${job.tags}, ' ')`;
  return or(
    ...[job.name, job.model, job.dataset, job.notes].map((column) => ilike(column, pattern)),
    ilike(tags, pattern),
  );
}
