// The schema builder that all rooms share: scalars, the context of an operation, and loaders that
// read many rows at once. Fields are non-null unless they are declared nullable.
import SchemaBuilder from '@pothos/core';
import DataLoader from 'dataloader';
import { GraphQLError } from 'graphql';
import type { Actor } from '../actor.ts';
import type { Config } from '../config.ts';
import type { Db } from '../database/database.ts';
import type { Store } from '../live/commit.ts';
import type { Feeds } from '../live/feed.ts';
import type { Budget } from './budget.ts';

/**
 * Reads many rows by key in one query. Results may come in any order, and missing rows are left
 * out.
 */
export type LoadMany<Key, Row> = (db: Db, keys: readonly Key[]) => Promise<Map<Key, Row>>;

/**
 * Context of resolvers, one for each operation; a subscription renews it for each event. Its
 * loaders read a row only once.
 */
export type Context = Store & {
  readonly actor: Actor | null;
  readonly feeds: Feeds;
  readonly config: Config;
  /** Value of the HTTP header `Idempotency-Key`; null when there is none. */
  readonly idempotencyKey: string | null;
  readonly loaders: Map<unknown, unknown>;
  /** Bytes that the operation may hold, of rows and of its answer. */
  readonly budget: Budget;
};

export const builder = new SchemaBuilder<{
  Context: Context;
  DefaultFieldNullability: false;
  Scalars: {
    ID: { Input: string; Output: string };
    DateTime: { Input: Date; Output: Date };
    JSON: { Input: unknown; Output: unknown };
    JSONObject: { Input: Record<string, unknown>; Output: Record<string, unknown> };
    SafeInt: { Input: number; Output: number };
    MetricValue: { Input: never; Output: number };
    SpecPath: { Input: string; Output: string };
    URI: { Input: string; Output: string };
  };
}>({ defaultFieldNullability: false });

/** The builder's types, for helpers with refs as parameters. */
export type Types = typeof builder extends PothosSchemaTypes.SchemaBuilder<infer T> ? T : never;

/**
 * Loads a row by key, in one query with all keys that this operation asks of the same reader in one
 * turn.
 */
export function load<Key, Row>(context: Context, loadMany: LoadMany<Key, Row>, key: Key): Promise<Row | null> {
  let loader = context.loaders.get(loadMany) as DataLoader<Key, Row | null> | undefined;
  if (!loader) {
    loader = new DataLoader<Key, Row | null>(async (keys) => {
      const rows = await loadMany(context.database.db, keys);
      return keys.map((rowKey) => rows.get(rowKey) ?? null);
    });
    context.loaders.set(loadMany, loader);
  }
  return loader.load(key);
}

/** Like `load`, for rows that a foreign key guarantees. */
export async function loadExisting<Key, Row>(
  context: Context,
  loadMany: LoadMany<Key, Row>,
  key: Key,
): Promise<NonNullable<Row>> {
  const row = await load(context, loadMany, key);
  if (row === null || row === undefined) throw new Error(`A row that must exist is missing: ${String(key)}`);
  return row;
}

/**
 * Resolver of the root field of a subscription. It drops the rows that earlier events loaded, and
 * their bytes, so that each event shows the current state.
 */
export function asOfNow<Event>(event: Event, _args: unknown, context: Context): Event {
  context.loaders.clear();
  context.budget.renew();
  return event;
}

/**
 * Marks a type, or the root field of a subscription, whose resolvers do not depend on the viewer:
 * their result for an event is the same for everybody, and may be shared. Fields without the mark
 * are executed for each subscriber.
 */
export const viewerNeutral = { extensions: { viewerNeutral: true } } as const;

builder.queryType({ description: 'Reads. Nothing here changes anything.' });
builder.mutationType({
  description: 'Changes. One `input` each; expected failures are members of the result union.',
});
builder.subscriptionType({
  description: `Live streams, over WebSocket (\`graphql-transport-ws\`) or Server-Sent Events on the same endpoint.

Every stream with an \`after\` argument is resumable: remember the newest \`endCursor\` and pass it as \`after\` when you
reconnect. Delivery is in order, without a gap and without a repeat; what cannot be delivered is named in \`gaps\`. A slow
reader lags, it never loses lines and never slows others down.`,
});

builder.scalarType('DateTime', {
  description: 'An instant in RFC 3339 format, always UTC with millisecond precision, e.g. `2026-11-23T12:15:35.123Z`.',
  serialize: (value) => (value instanceof Date ? value : new Date(String(value))).toISOString(),
  parseValue: parseDateTime,
});
builder.scalarType('JSONObject', {
  description: 'An arbitrary JSON object. Keys are passed through untouched (snake_case stays snake_case).',
  serialize: (value) => value as Record<string, unknown>,
  parseValue(value) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) wrong('a JSON object');
    return withoutProto(value) as Record<string, unknown>;
  },
});
builder.scalarType('JSON', {
  description: 'Any JSON value: a number, a string, a boolean, null, a list or an object.',
  serialize: (value) => value,
  parseValue: withoutProto,
});
builder.scalarType('SafeInt', {
  description:
    'An integer up to ±(2^53−1). Used for steps, sequence numbers and byte counts, which outgrow 32-bit `Int`.',
  serialize: (value) => value as number,
  parseValue(value) {
    if (typeof value !== 'number' || !Number.isSafeInteger(value)) wrong('an integer up to ±(2^53−1)');
    return value;
  },
});
builder.scalarType('MetricValue', {
  description: `A metric value: a JSON number, or one of the strings \`"NaN"\`, \`"Infinity"\`, \`"-Infinity"\` (the protobuf-JSON mapping,
which MLflow clients also use). A diverged loss is data, not an error.`,
  serialize: (value) => (Number.isFinite(value) ? (value as number) : String(value)),
  parseValue: () => wrong('nothing: metric values are output only'),
});
builder.scalarType('SpecPath', {
  description: `Dotted path into the job spec file in its own snake_case notation, e.g. \`hyperparams.batch_size\`,
\`hyperparams.early_stopping.patience\`, \`resources.gpus\`.`,
  serialize: (value) => String(value),
  parseValue: (value) => (typeof value === 'string' ? value : wrong('a dotted path')),
});

function parseDateTime(value: unknown): Date {
  const rfc3339 = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/;
  const date = typeof value === 'string' && rfc3339.test(value) && isOnCalendar(value) ? new Date(value) : undefined;
  if (!date || Number.isNaN(date.getTime())) wrong('an RFC 3339 time such as "2026-11-23T12:15:35.123Z"');
  return date;
}

/**
 * Whether the date exists. `Date` would turn 30 February into a day of March, and there was no year
 * 0.
 */
function isOnCalendar(text: string): boolean {
  const [year = 0, month = 0, day = 0] = text.slice(0, 10).split('-').map(Number);
  return year >= 1 && new Date(Date.UTC(year, month - 1, day)).getUTCDate() === day;
}

/**
 * Removes `__proto__` keys at any depth: a job does not need them, and copying one into an object
 * could replace its prototype. Throws for numbers such as 1e400, which a double cannot hold and
 * JSON cannot return.
 */
function withoutProto(value: unknown, depth = 0): unknown {
  if (depth > 32) wrong('JSON that is nested at most 32 deep');
  if (typeof value === 'number' && !Number.isFinite(value)) wrong('numbers within ±1.8e308');
  if (Array.isArray(value)) return value.map((item) => withoutProto(item, depth + 1));
  if (typeof value !== 'object' || value === null) return value;
  const kept = Object.entries(value).filter(([key]) => key !== '__proto__');
  return Object.fromEntries(kept.map(([key, item]) => [key, withoutProto(item, depth + 1)]));
}

/** Throws without the value in the message: it may stand next to a secret. */
function wrong(expected: string): never {
  throw new GraphQLError(`Expected ${expected}.`);
}
