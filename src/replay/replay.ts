// Idempotency keys: the same key with the same input gives the first object, with another input a conflict. The key's
// row is written in the transaction of the object it stands for, so neither exists without the other, and a refused
// submission does not use its key up.
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import { and, eq, sql } from 'drizzle-orm';
import { databaseErrorCode } from '../database/database.ts';
import { insertRows } from '../database/rows.ts';
import { invalid, Refusal } from '../errors.ts';
import { replays } from '../metrics-registry.ts';
import type { Tx } from '../live/commit.ts';
import { idempotencyKey } from './table.ts';

export type KeyedInput = {
  /** Project of the mutation; `*` for the whole platform. */
  scope: string;
  mutation: string;
  key: string;
  /** What was sent, without absent keys. */
  input: Record<string, unknown>;
  /** Id of the object that this transaction makes when the key is new. */
  objectId: string;
};

/** Waiting for the first holder of a key keeps a connection, so it ends; the caller comes again. */
const lockTimeoutMs = 3_000;

/** RFC 8785: equal values give equal text. */
export function canonical(value: unknown): string {
  return canonicalize(value) ?? 'null';
}

/** SHA-256 of the canonical value, in hex. */
export function hashOf(value: unknown): string {
  return createHash('sha256').update(canonical(value)).digest('hex');
}

/**
 * Takes the key for `objectId`, or says which object it already stands for: null when it is new. Throws
 * IDEMPOTENCY_CONFLICT for another input, IN_PROGRESS when the first submission with this key is still under way.
 */
export async function takeKey(tx: Tx, keyed: KeyedInput): Promise<string | null> {
  requireKey(keyed.key);
  const { scope, mutation, key, input, objectId } = keyed;
  const fingerprint = hashOf(input);
  try {
    if ((await takeKeys(tx, [keyed], lockTimeoutMs)).has(objectId)) return null;
  } catch (error) {
    if (databaseErrorCode(error) === '55P03') throw inProgress();
    throw error;
  }
  const [known] = await tx
    .select()
    .from(idempotencyKey)
    .where(and(eq(idempotencyKey.scope, scope), eq(idempotencyKey.mutation, mutation), eq(idempotencyKey.key, key)));
  if (!known) throw inProgress(); // it was refused just now: the key is free again
  if (known.fingerprint === fingerprint) {
    replays.inc();
    return known.objectId;
  }
  const message = 'The idempotency key was used before with a different input.';
  throw new Refusal('IDEMPOTENCY_CONFLICT', message, {
    path: ['input', 'idempotencyKey'],
    hint: 'Send the first input again, or use a new key for a new submission.',
    existingId: known.objectId,
    differingPaths: differingPaths(known.input as Record<string, unknown>, input),
  });
}

/**
 * Takes those of the keys that are new; the ids of their objects. Waits while another transaction holds one of them,
 * until that one ends or the time is up: then it fails as Postgres does (55P03).
 */
export async function takeKeys(tx: Tx, keys: readonly KeyedInput[], waitMs: number): Promise<Set<string>> {
  if (keys.length === 0) return new Set();
  // In one order everywhere, so that no two transactions wait for each other.
  const rows = keys
    .map((keyed) => ({ ...keyed, fingerprint: hashOf(keyed.input) }))
    .sort((a, b) => (a.key < b.key ? -1 : Number(a.key > b.key)));
  const [, taken] = await Promise.all([
    tx.execute(sql`select set_config('lock_timeout', ${`${waitMs}ms`}, true)`).execute(),
    tx
      .execute<{ object_id: string }>(
        sql`${insertRows(idempotencyKey, rows)} on conflict do nothing returning object_id`,
      )
      .execute(),
  ]);
  return new Set(taken.map((row) => row.object_id));
}

/** Throws INVALID_INPUT for a text that cannot be a key. */
export function requireKey(key: string): void {
  if (key.length >= 1 && key.length <= 255 && !key.includes('\0')) return;
  const path = ['input', 'idempotencyKey'];
  throw invalid([{ code: 'OUT_OF_RANGE', path, message: 'idempotencyKey takes 1 to 255 characters, and no NUL.' }]);
}

function inProgress(): Refusal {
  return new Refusal('IN_PROGRESS', 'A submission with this idempotency key is still being processed.', {
    path: ['input', 'idempotencyKey'],
    hint: 'Send the same request again in a moment.',
    retryAfterSeconds: 1,
  });
}

/** Dotted paths of leaves whose values differ, in order. */
export function differingPaths(a: Record<string, unknown>, b: Record<string, unknown>): string[] {
  const [left, right] = [leavesOf(a), leavesOf(b)];
  const places = [...new Set([...left.keys(), ...right.keys()])];
  const differing = places.filter((place) => left.get(place) !== right.get(place));
  return [...new Set(differing.map((place) => (JSON.parse(place) as string[]).join('.')))].sort();
}

/** The canonical text of each leaf by its keys as JSON: a dotted path would be one for `{"a.b": 1}` and `{"a": {"b": 1}}`. */
function leavesOf(value: unknown, keys: readonly string[] = [], leaves = new Map<string, string>()) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return leaves.set(JSON.stringify(keys), canonical(value));
  }
  for (const [key, item] of Object.entries(value)) leavesOf(item, [...keys, key], leaves);
  return leaves;
}
