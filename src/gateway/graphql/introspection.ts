// Introspections: what the schema says of itself is the same for everybody, and standard tools ask for it in a few texts.
// Each text is executed once, and its answer kept as bytes. Other operations are none of its business.
import type { IncomingMessage } from 'node:http';
import type { Pieces } from '../../graphql/json.ts';
import type { Operation } from './operation.ts';
import { prepareAnswer, type PreparedAnswer } from '../http/prepared-answer.ts';

export type Introspections = {
  /** The answer to a body of HTTP, when it was kept for the same body and `accept`. */
  find(key: string): PreparedAnswer | undefined;
  keep(key: string, text: Pieces, contentType: string): void;
};

/** Answers that are kept: GraphiQL's, those of two versions of graphql-js and of code generators, and some more. */
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
/** `describeOperation` names no more: with as many there may be others. */
const mostFields = 9;

/** Whether an operation asks for nothing but the schema. */
export function isIntrospection(operation: Operation | null): boolean {
  if (operation?.kind !== 'query' || operation.fields.length > mostFields) return false;
  return operation.fields.every((field) => schemaFields.has(field));
}

/** What the answer to a request depends on, when it may be an introspection; null for any other. */
export function introspectionKey(request: IncomingMessage, url: URL, body: unknown): string | null {
  const { accept = '' } = request.headers;
  const search = Object.fromEntries(url.searchParams);
  const members = (request.method === 'GET' ? search : (body ?? {})) as Record<string, unknown>;
  const { query, operationName, variables, extensions } = members;
  // Whatever else is said must be refused or heeded, not overlooked.
  const isPlain = [variables, extensions].every((value) => value === undefined || value === null);
  if (typeof query !== 'string' || query.length > longestQuery || !query.includes('__') || !isPlain) return null;
  return JSON.stringify([request.method, accept, query, operationName]);
}
