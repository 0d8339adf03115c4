// JSON answers outside of GraphQL, and refusals of the guard in the shape of GraphQL's errors.
import type { ServerResponse } from 'node:http';
import type { Refused } from './guard.ts';

const codes: Record<number, string> = { 403: 'PERMISSION_DENIED', 404: 'NOT_FOUND', 503: 'UNAVAILABLE' };

/** Body of the answer to a request that the guard refused. */
export function errorBody({ status, message, code = codes[status] ?? 'BAD_USER_INPUT' }: Refused) {
  return { errors: [{ message, extensions: { code, retryable: status === 503 } }] };
}

/** Answers a request that the guard refused. */
export function refuse(response: ServerResponse, refused: Refused): void {
  if (response.headersSent || response.destroyed) return;
  send(response, refused.status, errorBody(refused));
}

export function send(response: ServerResponse, status: number, body: unknown): void {
  endUnread(response);
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
}

/** Bytes of an unread body that Node discards after the answer, to keep the connection. */
const maxDiscardedBytes = 1024 * 1024;

/**
 * Called before an answer whose request body may be unread. After a short body the connection
 * stays: Node discards the rest. After a longer one, or one without a length, it is closed.
 */
export function endUnread(response: ServerResponse): void {
  const { complete, headers } = response.req;
  const { 'content-length': length = '0', 'transfer-encoding': encoding, expect } = headers;
  if (complete || (encoding === undefined && expect === undefined && Number(length) <= maxDiscardedBytes)) return;
  response.setHeader('connection', 'close');
}
