// The socket under a connection to a Postgres server. With its own socket, postgres.js 3.4.9 leaves
// queries unanswered when the connection breaks; tests in test/database/database.test.ts show it.
import { Socket } from 'node:net';

type Target = { host: string[]; port: number[]; path: string | false | undefined };

/** Opens a socket to the server; it connects in the background. */
export function openSocket({ host: [host = 'localhost'], port: [port = 5432], path }: Target): Socket {
  const socket = path ? new ServerSocket().connect(path) : new ServerSocket().connect(port, host);
  // After a connection breaks, the driver keeps its last query and takes a refusal of the next
  // connection (55000, 57P03, 53300) for the error of that query. It would retry without a pause,
  // and the caller would wait until the server accepts connections. An error of the socket at 'end'
  // fails that query instead.
  return socket.once('end', () => {
    socket.destroy(Object.assign(new Error('The server closed the connection.'), { code: 'CONNECTION_CLOSED' }));
  });
}

/**
 * Whether `openSocket` can be used: the driver makes its own sockets for TLS and for several hosts.
 */
export function isPlain({ ssl, host }: { ssl: unknown; host: string[] }): boolean {
  return !ssl && host.length === 1;
}

class ServerSocket extends Socket {
  /**
   * Reports each close as one without an error. After a close with an error the driver fails no
   * query, so that a query sent in between would wait for ever, and take the answer of the next
   * connection's first query.
   */
  override emit(event: string | symbol, ...values: unknown[]): boolean {
    return event === 'close' ? super.emit('close', false) : super.emit(event, ...values);
  }

  /**
   * Always returns true. At false ("the socket is full"), the driver forgets to give begin() its
   * connection: the transaction fails with a TypeError, and stays open on a connection that others
   * use.
   */
  override write(data: string | Uint8Array, encoding?: BufferEncoding | Done, done?: Done): boolean {
    super.write(data, encoding as BufferEncoding, done);
    return true;
  }
}

type Done = (error?: Error | null) => void;
