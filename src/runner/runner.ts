// Runners: their registration, their signs of life, and which of them are online.
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

/** A runner without a request for this long is offline. It makes one at least every 20 s. */
const offlineAfterSeconds = 30;
/** Shortest pause between two writes of `lastSeenAt` or `claimedAt`. */
const seenEverySeconds = 5;

/** Registers a runner, or updates it: the same token and name are the same runner. */
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

/** Returns the number of attempts that the runner takes at once. */
export function placesOf({ places, gpus }: Pick<Runner, 'places' | 'gpus'>): number {
  return places ?? defaultPlaces(gpus.length);
}

/**
 * Returns the runner with this id; throws NOT_FOUND unless it was registered with the actor's
 * token.
 */
export async function requireRunner(db: Db, actor: Actor, id: string): Promise<Runner> {
  requirePlatformScope(actor, 'RUNNER');
  const row = (await loadRunners(db, [id])).get(id);
  if (row?.tokenId !== actor.tokenId) {
    throw notFound('Runner', id, ['runnerId'], 'Register again: the gateway may have a new database.');
  }
  return row;
}

/**
 * Records that the runner was seen now, or with `claims` that it asked for work; at most every 5 s.
 */
export async function touchRunner(tx: Tx, id: string, { claims = false } = {}): Promise<void> {
  const before = sql`${now} - ${`${seenEverySeconds} s`}::interval`;
  const stale = claims ? or(isNull(runner.claimedAt), lt(runner.claimedAt, before)) : lt(runner.lastSeenAt, before);
  await tx
    .update(runner)
    .set(claims ? { lastSeenAt: now, claimedAt: now } : { lastSeenAt: now })
    .where(and(eq(runner.id, id), stale));
}

/**
 * Records that a runner takes no more jobs. With another boot id the request is late, from an
 * earlier start of the runner, and is ignored.
 */
export async function drainRunner(tx: Tx, actor: Actor, { runnerId, bootId }: DrainRequest): Promise<void> {
  await requireRunner(tx, actor, runnerId);
  await tx
    .update(runner)
    .set({ lastSeenAt: now, drainingAt: now })
    .where(and(eq(runner.id, runnerId), eq(runner.bootId, bootId)));
}

/** Loads runners by their ids. */
export async function loadRunners(db: Db, ids: readonly string[]): Promise<Map<string, Runner>> {
  const rows = await db.select().from(runner).where(isOneOf(runner.id, ids));
  return new Map(rows.map((row) => [row.id, row]));
}

/** Lists the online runners, at most 1000, on which jobs can be placed. */
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

/**
 * Lists runners in these states, in order of registration, one more than the limit when there are
 * more. Every reader sees all runners.
 */
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
