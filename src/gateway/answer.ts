// How the server answers when it is not GraphQL that does: JSON, and refusals of the guard in the shape of GraphQL's errors.
import type { ServerResponse } from 'node:http';
import type { Refused } from './guard.ts';

const codes: Record<number, string> = { 403: 'PERMISSION_DENIED', 404: 'NOT_FOUND', 503: 'UNAVAILABLE' };

/** A refusal of the guard as the body of an answer. */
export function errorBody({ status, message, code = codes[status] ?? 'BAD_USER_INPUT' }: Refused) {
  return { errors: [{ message, extensions: { code, retryable: status === 503 } }] };
}

/** Answers a request that the guard refused, and ends a connection whose body nobody will read. */
export function refuse(response: ServerResponse, refused: Refused): void {
  if (response.headersSent || response.destroyed) return;
  if (!response.req.complete) response.setHeader('connection', 'close');
  send(response, refused.status, errorBody(refused));
}

export function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
}
