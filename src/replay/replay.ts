// Idempotency keys: the same key with the same input gives the first object again, with another
// input a conflict. The row of the key is written in the transaction of its object, so that neither
// exists without the other, and a refused submission does not use up its key.
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
  /** The input as it was sent, without absent fields. */
  input: Record<string, unknown>;
  /** Id of the object that this transaction makes when the key is new. */
  objectId: string;
};

/**
 * Longest wait for another transaction that holds the same key. The wait occupies a connection, so
 * it ends, and the caller tries again.
 */
const lockTimeoutMs = 3_000;

/** Returns canonical JSON (RFC 8785): equal values give equal text. */
export function canonical(value: unknown): string {
  return canonicalize(value) ?? 'null';
}

/** Returns the SHA-256 of the canonical JSON, in hex. */
export function hashOf(value: unknown): string {
  return createHash('sha256').update(canonical(value)).digest('hex');
}

/**
 * Takes the key for `objectId`. Returns null when the key is new, else the id of the object for
 * which it stands. Throws IDEMPOTENCY_CONFLICT for another input, and IN_PROGRESS while the first
 * submission with this key is under way.
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
  const [earlier] = await tx
    .select()
    .from(idempotencyKey)
    .where(and(eq(idempotencyKey.scope, scope), eq(idempotencyKey.mutation, mutation), eq(idempotencyKey.key, key)));
  // its submission was refused just now, and the key is free again
  if (!earlier) throw inProgress();
  if (earlier.fingerprint === fingerprint) {
    replays.inc();
    return earlier.objectId;
  }
  const message = 'The idempotency key was used before with a different input.';
  throw new Refusal('IDEMPOTENCY_CONFLICT', message, {
    path: ['input', 'idempotencyKey'],
    hint: 'Send the first input again, or use a new key for a new submission.',
    existingId: earlier.objectId,
    differingPaths: differingPaths(earlier.input as Record<string, unknown>, input),
  });
}

/**
 * Takes the keys that are new and returns the ids of their objects. Waits up to `waitMs` while
 * another transaction holds one of them, then fails with the error of Postgres (55P03).
 */
export async function takeKeys(tx: Tx, keys: readonly KeyedInput[], waitMs: number): Promise<Set<string>> {
  if (keys.length === 0) return new Set();
  // All transactions take keys in the same order, so that no two wait for each other.
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

/** Returns the dotted paths of leaves whose values differ, sorted. */
export function differingPaths(a: Record<string, unknown>, b: Record<string, unknown>): string[] {
  const [left, right] = [leavesOf(a), leavesOf(b)];
  const places = [...new Set([...left.keys(), ...right.keys()])];
  const differing = places.filter((place) => left.get(place) !== right.get(place));
  return [...new Set(differing.map((place) => (JSON.parse(place) as string[]).join('.')))].sort();
}

/**
 * Returns the canonical text of each leaf by its keys as JSON. A dotted path would not do: `{"a.b":
 * 1}` and `{"a": {"b": 1}}` have the same.
 */
function leavesOf(value: unknown, keys: readonly string[] = [], leaves = new Map<string, string>()) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return leaves.set(JSON.stringify(keys), canonical(value));
  }
  for (const [key, item] of Object.entries(value)) leavesOf(item, [...keys, key], leaves);
  return leaves;
}
