// Limits on the TCP connections of an HTTP server, before any token is known: their number is
// bounded, and a connection that does not finish its request in time is cut.
import { createServer, type RequestListener, type Server } from 'node:http';
import { connectionFigures } from '../../metrics-registry.ts';

export type ConnectionLimits = {
  /** Upper bound of open connections; a further one is closed at once, without an answer. */
  maxConnections: number;
  /** Milliseconds from the opening of a connection, or the first byte of a later request, to the end of the head. */
  headMs?: number;
  /** Milliseconds to the end of the request's body. */
  requestMs?: number;
  /** Milliseconds between two checks of these limits, so a limit may be exceeded by this much. */
  lookMs?: number;
};

const maxHeadBytes = 16 * 1024;

/**
 * Makes an HTTP server with these limits. An idle connection stays open 5 s for a next request,
 * which is Node's default.
 */
export function createBoundedServer(
  { maxConnections, headMs = 10_000, requestMs = 60_000, lookMs = 1_000 }: ConnectionLimits,
  listener: RequestListener,
): Server {
  const server = createServer(
    {
      maxHeaderSize: maxHeadBytes,
      headersTimeout: headMs,
      requestTimeout: requestMs,
      connectionsCheckingInterval: lookMs,
    },
    listener,
  );
  // `Expect: 100-continue` is answered by `readBody`, once the request is not refused.
  server.on('checkContinue', listener);
  server.maxConnections = maxConnections;
  server.on('drop', () => connectionFigures.capped.inc({ cap: 'connections' }));
  return server;
}
