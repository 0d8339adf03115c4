// Websockets (`graphql-transport-ws`): the upgrade of a request, and the way of texts between the
// socket and the protocol.
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { CloseCode, handleProtocols, type Server } from 'graphql-ws';
import { type WebSocket, WebSocketServer } from 'ws';
import { connectionFigures } from '../../metrics-registry.ts';
import { publicError, type ReportBug } from '../../graphql/error.ts';
import type { Pace } from '../limits/caps.ts';
import type { Drain } from '../http/connection-drain.ts';
import { clientGoneRefusal } from '../http/graphql.ts';
import { holdBack, sendPings } from './liveness.ts';
import { type Connection, createProtocol, type ProtocolOptions } from './protocol.ts';
import { createSocketWriter } from './socket-writer.ts';

export type Sockets = {
  /** Completes the upgrade of a request that passed the guard. */
  accept(request: IncomingMessage, socket: Duplex, head: Buffer): void;
};

const maxFrameBytes = 64 * 1024;
/** Bytes that a socket may send before it is acknowledged: a token and its wrapping. */
const maxInitBytes = 16 * 1024;

export function createSockets({ drain, ...options }: ProtocolOptions & { drain: Drain }): Sockets {
  const { gateway, report } = options;
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: maxFrameBytes,
    perMessageDeflate: false,
    handleProtocols,
  });
  const protocol = createProtocol(options);
  return {
    accept: (request, socket, head) =>
      server.handleUpgrade(request, socket, head, (opened) => {
        // 1012, the service restarts: clients come back at once, to another gateway.
        const close = () => opened.close(1012, 'Service restart');
        const gone = drain.add({ close, terminate: () => opened.terminate() });
        connectionFigures.sockets.inc();
        opened.once('close', () => {
          gone();
          connectionFigures.sockets.dec();
        });
        serve(opened, socket, gateway.caps.newPace(), protocol, report);
      }),
  };
}

/**
 * Connects a websocket to the protocol. The adapter of graphql-ws is not used: it prints every
 * mistake of a client with a stack, and takes binary frames for text.
 */
function serve(socket: WebSocket, raw: Duplex, pace: Pace, protocol: Server<Connection>, report: ReportBug): void {
  // ws closes the socket itself after an error, e.g. with 1009 for a frame that is too large.
  socket.on('error', () => {});
  const fail = (error: unknown) => {
    if (!isMisuse(error)) publicError(error, report);
    socket.close(isMisuse(error) ? CloseCode.BadRequest : CloseCode.InternalServerError);
  };
  const clientGone = new AbortController();
  const connection: Connection = {
    socket,
    writer: createSocketWriter(socket, raw),
    pace,
    clientGone: clientGone.signal,
  };
  let bytesBeforeAck = 0;
  const closed = protocol.opened(
    {
      protocol: socket.protocol,
      // Settles when the text is written: graphql-ws waits for it before it pulls the next value.
      send: (text) =>
        new Promise((resolve, reject) => {
          if (socket.readyState !== socket.OPEN) return resolve();
          socket.send(text, (error) => (error && socket.readyState === socket.OPEN ? reject(error) : resolve()));
        }),
      close: (code, reason) => socket.close(code, fitReason(reason)),
      onMessage: (take) =>
        socket.on('message', (data: Buffer, isBinary) => {
          // messages after our close frame are ignored
          if (socket.readyState !== socket.OPEN) return;
          if (connection.actor === undefined && (bytesBeforeAck += data.length) > maxInitBytes) {
            return socket.close(1009, 'More than 16 KiB before connection_ack');
          }
          if (isBinary) return socket.close(CloseCode.BadRequest, 'Binary messages are not supported');
          take(data.toString('utf8')).catch(fail);
        }),
    },
    connection,
  );
  holdBack(socket, raw);
  const stopPings = sendPings(socket, raw);
  socket.once('close', (code, reason) => {
    stopPings();
    clientGone.abort(clientGoneRefusal());
    Promise.resolve(closed(code, String(reason))).catch((error: unknown) => void publicError(error, report));
  });
}

/** A close frame has room for 123 bytes of reason; a reason may quote the client, and be longer. */
function fitReason(reason: string | undefined): string | undefined {
  return reason && Buffer.byteLength(reason) <= 123 ? reason : undefined;
}

/** Whether graphql-ws threw because the client sent a message that only a server may send. */
function isMisuse(error: unknown): boolean {
  return error instanceof Error && /^Unexpected message of type /.test(error.message);
}
