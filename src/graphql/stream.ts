// Streams: subscriptions to rows whose positions only grow. All keep one contract: `after` resumes
// behind a cursor, `last: n` starts n items before the end, and each batch has the cursor of its
// end. A room adds only the reading of its rows.
import type { InputFieldMap, InputShapeFromFields, ObjectFieldsShape, ObjectRef } from '@pothos/core';
import { type Actor, requireActor } from '../actor.ts';
import type { FollowOptions } from '../live/feed.ts';
import { asOfNow, builder, type Context, type Types, viewerNeutral } from './builder.ts';
import { badInput } from './node.ts';

/** One message to a subscriber: rows, and the cursor of their end. */
export type Batch<Rows extends object> = Rows & { endCursor: string; caughtUp: boolean; done: boolean };

type BatchOptions<T> = {
  description: string;
  /** Fields of the rows. */
  fields: ObjectFieldsShape<Types, T>;
  /** Descriptions of the fields that every batch has. */
  endCursor: string;
  caughtUp?: string;
  done: string;
};

/** Defines the GraphQL type of a stream's batches. */
export function batchType<T extends Batch<object>>(name: string, options: BatchOptions<T>): ObjectRef<Types, T> {
  const { description, fields, endCursor, done } = options;
  const { caughtUp = 'Indicates the backlog is delivered and what follows is live.' } = options;
  return builder.objectRef<T>(name).implement({
    ...viewerNeutral,
    description,
    fields: (t) => ({
      ...fields(t),
      endCursor: t.string({ description: endCursor, resolve: (batch) => batch.endCursor }),
      caughtUp: t.boolean({ description: caughtUp, resolve: (batch) => batch.caughtUp }),
      done: t.boolean({ description: done, resolve: (batch) => batch.done }),
    }),
  });
}

/**
 * Start of a subscription: behind the cursor `after`, or `last` items before the end. With neither,
 * at the beginning of the stream.
 */
export type StreamStart = { after: string | null; last: number | null };

type StreamOptions<T, Args extends InputFieldMap> = {
  description: string;
  batch: ObjectRef<Types, T>;
  /** Arguments beside `after` and `last`. */
  args: Args;
  /** Description of `after`. */
  after: string;
  last: { max: number; description: string };
  /** Throws when the caller may not see the stream. Returns the channel and the rows to follow. */
  follow(
    args: InputShapeFromFields<Args> & StreamStart,
    context: Context,
    actor: Actor,
  ): FollowOptions<T> | Promise<FollowOptions<T>>;
};

/**
 * Adds a subscription that can resume. It is viewer-neutral: its followers share reads and
 * executions. Anything beside the position on which the rows depend, e.g. the project of the token,
 * belongs into the key of the stream.
 */
export function streamField<T extends Batch<object>, Args extends InputFieldMap>(
  name: string,
  options: StreamOptions<T, Args>,
): void {
  const { description, batch, after, last } = options;
  builder.subscriptionField(name, (t) =>
    t.field({
      ...viewerNeutral,
      type: batch,
      description,
      args: {
        ...options.args,
        after: t.arg.string({ description: after }),
        last: t.arg.int({ description: last.description }),
      },
      // The cast is needed since Pothos cannot follow the generic arguments and batch through its
      // resolver types.
      subscribe: (async (_: unknown, args: InputShapeFromFields<Args> & Partial<StreamStart>, context: Context) => {
        const actor = requireActor(context.actor);
        const start = checkStart(args, last.max);
        return context.feeds.follow(await options.follow({ ...args, ...start }, context, actor));
      }) as never,
      resolve: asOfNow as never,
    }),
  );
}

function checkStart({ after = null, last = null }: Partial<StreamStart>, max: number): StreamStart {
  if (after !== null && last !== null) throw badInput('Pass after or last, not both.', ['last']);
  if (last !== null && (last < 0 || last > max)) {
    throw badInput(`last is ${last}; it goes from 0 to ${max}.`, ['last']);
  }
  return { after, last };
}
