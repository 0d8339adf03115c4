// Runners: signing on, signs of life, and who is there.
import { and, eq, isNull, lt, or, type SQL, sql } from 'drizzle-orm';
import { type Actor, requirePlatformScope } from '../actor.ts';
import { channels } from '../bus/bus.ts';
import { now } from '../database/columns.ts';
import type { Db } from '../database/database.ts';
import { keyset } from '../database/keyset.ts';
import { isOneOf } from '../database/rows.ts';
import { notFound } from '../errors.ts';
import { newId } from '../id.ts';
import type { Tx } from '../live/commit.ts';
import { defaultPlaces, type DrainRequest, type RegisterRequest } from '../protocol/control.ts';
import { runner } from './table.ts';

export type Runner = typeof runner.$inferSelect;
export type RunnerState = 'ONLINE' | 'DRAINING' | 'OFFLINE';

/** A runner that was not heard for so long is offline. It says something at least every 20 s. */
const offlineAfterSeconds = 30;
const seenEverySeconds = 5;

/** Signs a runner on, or back on: the same token and name are the same runner. */
export async function registerRunner(tx: Tx, actor: Actor, request: RegisterRequest): Promise<Runner> {
  requirePlatformScope(actor, 'RUNNER');
  const { name, version, labels, gpus, places = null, bootId } = request;
  const projectIds = actor.runnerProjectIds === null ? null : [...actor.runnerProjectIds];
  const values = { name, version, labels, gpus, places, projectIds, bootId, lastSeenAt: now, drainingAt: null };
  const [row] = await tx
    .insert(runner)
    .values({ id: newId('run'), tokenId: actor.tokenId, ...values })
    .onConflictDoUpdate({ target: [runner.tokenId, runner.name], set: values })
    .returning();
  if (!row) throw new Error('An upsert returned no row.');
  tx.notify(channels.work);
  return row;
}

/** Attempts that the runner takes at once. */
export function placesOf({ places, gpus }: Pick<Runner, 'places' | 'gpus'>): number {
  return places ?? defaultPlaces(gpus.length);
}

/** The runner with this id; throws NOT_FOUND unless it signed on with the actor's token. */
export async function requireRunner(db: Db, actor: Actor, id: string): Promise<Runner> {
  requirePlatformScope(actor, 'RUNNER');
  const found = (await loadRunners(db, [id])).get(id);
  if (found?.tokenId !== actor.tokenId) {
    throw notFound('Runner', id, ['runnerId'], 'Register again: the gateway may have a new database.');
  }
  return found;
}

/** Writes that the runner was heard now, or also asked for work, every few seconds at most. */
export async function touchRunner(tx: Tx, id: string, { claims = false } = {}): Promise<void> {
  const before = sql`${now} - ${`${seenEverySeconds} s`}::interval`;
  const stale = claims ? or(isNull(runner.claimedAt), lt(runner.claimedAt, before)) : lt(runner.lastSeenAt, before);
  await tx
    .update(runner)
    .set(claims ? { lastSeenAt: now, claimedAt: now } : { lastSeenAt: now })
    .where(and(eq(runner.id, id), stale));
}

/**
 * Writes that a runner takes no more jobs. Of a start of it that is over (another boot id) this says nothing: it may come
 * late.
 */
export async function drainRunner(tx: Tx, actor: Actor, { runnerId, bootId }: DrainRequest): Promise<void> {
  await requireRunner(tx, actor, runnerId);
  await tx
    .update(runner)
    .set({ lastSeenAt: now, drainingAt: now })
    .where(and(eq(runner.id, runnerId), eq(runner.bootId, bootId)));
}

/** Runners by id. */
export async function loadRunners(db: Db, ids: readonly string[]): Promise<Map<string, Runner>> {
  const rows = await db.select().from(runner).where(isOneOf(runner.id, ids));
  return new Map(rows.map((row) => [row.id, row]));
}

/** Runners that are there and take jobs, at most 1000: what a job can be placed on. */
export async function listOnlineRunners(db: Db): Promise<Runner[]> {
  return db.select().from(runner).where(inState.ONLINE).orderBy(runner.id).limit(1_000);
}

const isHere: SQL = sql`${runner.lastSeenAt} > ${now} - ${`${offlineAfterSeconds} s`}::interval`;
const inState: Record<RunnerState, SQL> = {
  ONLINE: sql`(${isHere} and ${runner.drainingAt} is null)`,
  DRAINING: sql`(${isHere} and ${runner.drainingAt} is not null)`,
  OFFLINE: sql`not ${isHere}`,
};

export type RunnerPage = { limit: number; backward: boolean; after?: string[]; before?: string[] };

/** Runners in these states, in order of registration, one more than the limit. All who may read see all runners. */
export async function listRunners(db: Db, states: RunnerState[] | null, page: RunnerPage): Promise<Runner[]> {
  const order = keyset([runner.id], { ...page, descending: false });
  const rows = await db
    .select()
    .from(runner)
    .where(and(inStates(states), ...order.where))
    .orderBy(...order.orderBy)
    .limit(order.limit);
  return order.inOrder(rows);
}

export async function countRunners(db: Db, states: RunnerState[] | null): Promise<number> {
  return db.$count(runner, inStates(states));
}

function inStates(states: RunnerState[] | null): SQL | undefined {
  if (!states) return undefined;
  return states.length === 0 ? sql`false` : or(...[...new Set(states)].map((state) => inState[state]));
}

export function runnerState(row: Runner, at: Date): RunnerState {
  if (at.getTime() - row.lastSeenAt.getTime() >= offlineAfterSeconds * 1000) return 'OFFLINE';
  return row.drainingAt ? 'DRAINING' : 'ONLINE';
}
