// Keeps the answers to introspections. The schema is the same for everybody, and standard tools ask
// for it with a few texts, so each text is executed once and its answer kept as bytes. Other
// operations are not kept.
import type { IncomingMessage } from 'node:http';
import type { Pieces } from '../../graphql/json.ts';
import type { Operation } from './operation.ts';
import { prepareAnswer, type PreparedAnswer } from '../http/prepared-answer.ts';

export type Introspections = {
  /** The kept answer for a key of `introspectionKey`; undefined when there is none. */
  find(key: string): PreparedAnswer | undefined;
  keep(key: string, text: Pieces, contentType: string): void;
};

/**
 * Upper bound of kept answers: room for GraphiQL, two versions of graphql-js, code generators, and
 * some more. Beyond it the least recently used answer is dropped.
 */
const mostKept = 16;
const [longestQuery, longestAnswer] = [10_000, 1024 * 1024];

export function createIntrospections(): Introspections {
  const kept = new Map<string, PreparedAnswer>();
  return {
    find(key) {
      const ready = kept.get(key);
      if (ready) {
        kept.delete(key);
        kept.set(key, ready);
      }
      return ready;
    },
    keep(key, { pieces, bytes }, contentType) {
      if (bytes > longestAnswer) return;
      kept.set(key, prepareAnswer(pieces.join(''), { 'content-type': contentType, 'cache-control': 'no-store' }));
      for (const oldest of kept.keys()) {
        if (kept.size <= mostKept) break;
        kept.delete(oldest);
      }
    },
  };
}

const schemaFields = new Set(['__schema', '__type', '__typename']);
/**
 * Upper bound of root fields. `describeOperation` lists ten at most: with ten there may be others
 * that it does not list.
 */
const mostFields = 9;

/** Whether all root fields of an operation ask for the schema. */
export function isIntrospection(operation: Operation | null): boolean {
  if (operation?.kind !== 'query' || operation.fields.length > mostFields) return false;
  return operation.fields.every((field) => schemaFields.has(field));
}

/**
 * Returns a text of everything that the answer depends on, for a request that may be an
 * introspection; null for any other.
 */
export function introspectionKey(request: IncomingMessage, url: URL, body: unknown): string | null {
  const { accept = '' } = request.headers;
  const search = Object.fromEntries(url.searchParams);
  const members = (request.method === 'GET' ? search : (body ?? {})) as Record<string, unknown>;
  const { query, operationName, variables, extensions } = members;
  // A request with variables or extensions goes through the pipeline, which refuses or uses them.
  const isPlain = [variables, extensions].every((value) => value === undefined || value === null);
  if (typeof query !== 'string' || query.length > longestQuery || !query.includes('__') || !isPlain) return null;
  return JSON.stringify([request.method, accept, query, operationName]);
}
