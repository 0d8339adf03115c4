// TCP connections of an HTTP server, before anybody has said who they are: their number is bounded, and one that does not
// finish what it began to ask is cut.
import { createServer, type RequestListener, type Server } from 'node:http';
import { connectionFigures } from '../../metrics-registry.ts';

export type ConnectionLimits = {
  /** Connections held at once; a further one is closed at once, without an answer. */
  maxConnections: number;
  /** Milliseconds from the opening of a connection, or the first byte of a later request, to the end of the head. */
  headMs?: number;
  /** Milliseconds to the end of the request's body. */
  requestMs?: number;
  /** How late a request that takes longer is noticed at most. */
  lookMs?: number;
};

const maxHeadBytes = 16 * 1024;

/** An HTTP server with these limits. A connection that was answered once is kept for a next request for 5 s, as Node does. */
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
  server.on('checkContinue', listener); // whoever reads the body says that it may come: see `readBody`
  server.maxConnections = maxConnections;
  server.on('drop', () => connectionFigures.capped.inc({ cap: 'connections' }));
  return server;
}
