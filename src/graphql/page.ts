// Pages: Relay connections. A reader returns rows in order, one more than requested, so that the
// page knows whether more follow. Cursors come from `live/cursor.ts`: a subscription can go on
// where a page ended.
import type { ObjectRef } from '@pothos/core';
import { builder, type Types } from './builder.ts';
import { inTurns } from '../turns.ts';
import { badInput } from './node.ts';

export type Page<T> = {
  edges: { cursor: string; node: T }[];
  hasNextPage: boolean;
  hasPreviousPage: boolean;
  /**
   * Cursor to go on after: that of the last edge, or for an empty page the position up to which it
   * looked.
   */
  endCursor?: string;
  /** Cursor to go on before, for pages from the end. */
  startCursor?: string;
  /** Counts the rows of all pages; called only when `totalCount` is selected. */
  countAll?: () => Promise<number>;
};

/**
 * The page that a reader returns: `limit` rows in the order of the stream, after or before a
 * cursor.
 */
export type PageRequest = { limit: number; backward: boolean; after?: string; before?: string };

type RawArgs = {
  first?: number | null;
  after?: string | null;
  last?: number | null;
  before?: string | null;
};

const defaultSize = 20;

/** Defines the four arguments of a connection whose pages hold at most `max` items. */
export const pageArgs = (max: number) =>
  builder.args((t) => ({
    first: t.int({ description: `Page size, 1–${max}.` }),
    after: t.string({ description: 'Cursor to start after.' }),
    last: t.int({ description: `Page size from the end, 1–${max}.` }),
    before: t.string({ description: 'Cursor to end before.' }),
  }));

/** Checks the four Relay arguments; a page without `first` and `last` has 20 items. */
export function readPageArgs(args: RawArgs, max: number): PageRequest {
  const { first, last, after, before } = args;
  if (typeof first === 'number' && typeof last === 'number') {
    throw badInput('Pass first or last, not both.', ['first']);
  }
  for (const [name, size] of Object.entries({ first, last })) {
    if (typeof size === 'number' && (size < 1 || size > max)) {
      throw badInput(`${name} is ${size}; it goes from 1 to ${max}.`, [name]);
    }
  }
  return {
    limit: first ?? last ?? defaultSize,
    backward: typeof last === 'number',
    after: after ?? undefined,
    before: before ?? undefined,
  };
}

/**
 * Makes a page of rows in the order of the stream. `rows` may hold one more than the limit, at the
 * end away from the cursor.
 */
export function toPage<T>(rows: T[], request: PageRequest, cursorOf: (row: T) => string): Page<T> {
  const more = rows.length > request.limit;
  const kept = !more ? rows : request.backward ? rows.slice(-request.limit) : rows.slice(0, request.limit);
  return {
    edges: kept.map((node) => ({ cursor: cursorOf(node), node })),
    hasNextPage: request.backward ? request.before !== undefined : more,
    hasPreviousPage: request.backward ? more : request.after !== undefined,
  };
}

export const PageInfo = builder.objectRef<Page<unknown>>('PageInfo').implement({
  description: 'Position of a page, as in the Relay connection specification.',
  fields: (t) => ({
    hasNextPage: t.exposeBoolean('hasNextPage', { description: 'Whether more edges follow.' }),
    hasPreviousPage: t.exposeBoolean('hasPreviousPage', { description: 'Whether edges precede.' }),
    startCursor: t.string({
      nullable: true,
      description:
        'Cursor of the first edge; null on an empty page. For a page of a log from the end, where to go on with `before`.',
      resolve: (page) => page.startCursor ?? page.edges[0]?.cursor,
    }),
    endCursor: t.string({
      nullable: true,
      description:
        'Cursor of the last edge; null on an empty page. For logs and metrics it is also a valid `after` of the matching subscription.',
      resolve: (page) => page.endCursor ?? page.edges.at(-1)?.cursor,
    }),
  }),
});

type ConnectionOptions = {
  /** Plural noun, e.g. `jobs`. */
  plural: string;
  description: string;
  edgeDescription: string;
  /** Singular noun for the descriptions, e.g. `job`. */
  noun: string;
  pageInfoDescription?: string;
};

/**
 * Defines the types `<Name>Connection` and `<Name>Edge`. A page with `countAll` supports
 * `totalCount`, see `addTotalCount`.
 */
export function connectionType<T>(name: string, nodeRef: ObjectRef<Types, T>, options: ConnectionOptions) {
  const edge = builder.objectRef<{ cursor: string; node: T }>(`${name}Edge`).implement({
    description: options.edgeDescription,
    fields: (t) => ({
      cursor: t.exposeString('cursor', { description: `Cursor of the ${options.noun}.` }),
      node: t.field({ type: nodeRef, description: `The ${options.noun}.`, resolve: (row) => row.node as never }),
    }),
  });
  return builder.objectRef<Page<T>>(`${name}Connection`).implement({
    description: options.description,
    fields: (t) => ({
      edges: t.field({
        type: [edge],
        description: 'Edges of the page.',
        resolve: (page) => listOf(page.edges) as never,
      }),
      nodes: t.field({
        type: [nodeRef],
        description: 'Nodes of the page, without the edges.',
        resolve: (page) => listOf(page.edges.map((row) => row.node)) as never,
      }),
      pageInfo: t.field({
        type: PageInfo,
        description: options.pageInfoDescription ?? 'Position of the page.',
        resolve: (page) => page,
      }),
    }),
  });
}

/** Lists above this length are completed in turns of 10 ms: their items may have many fields. */
const longList = 50;

/** Returns a list in the form that a resolver should return. */
export function listOf<T>(items: readonly T[]): readonly T[] | AsyncIterable<T> {
  return items.length > longList ? inTurns(items) : items;
}

/** Adds `totalCount` to a connection. */
export function addTotalCount<T>(connection: ReturnType<typeof connectionType<T>>, plural: string): void {
  builder.objectField(connection, 'totalCount', (t) =>
    t.int({
      description: `Number of ${plural} that match, over all pages. Costs 10 points.`,
      resolve: (page) => page.countAll?.() ?? page.edges.length,
    }),
  );
}
