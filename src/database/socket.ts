// The socket under a connection to a Postgres server, where postgres.js 3.4.9 would leave queries unanswered when the
// connection breaks: tests in test/database/database.test.ts fail on its own socket.
import { Socket } from 'node:net';

type Target = { host: string[]; port: number[]; path: string | false | undefined };

/** Connects in the background. */
export function openSocket({ host: [host = 'localhost'], port: [port = 5432], path }: Target): Socket {
  const socket = path ? new ServerSocket().connect(path) : new ServerSocket().connect(port, host);
  // The driver never forgets the query that a broken connection left, and takes the refusal of the next connection
  // (55000, 57P03, 53300) for that query's error: it would be refused again and again, without a pause, and whoever asks
  // would wait until the server lets somebody in. An error of the socket fails the one that waits.
  return socket.once('end', () => {
    socket.destroy(Object.assign(new Error('The server closed the connection.'), { code: 'CONNECTION_CLOSED' }));
  });
}

/** Whether it can be used: under TLS, and to choose among several hosts, the driver makes its own. */
export function isPlain({ ssl, host }: { ssl: unknown; host: string[] }): boolean {
  return !ssl && host.length === 1;
}

class ServerSocket extends Socket {
  /**
   * After an error the driver fails nothing at 'close'. A query that came between the two would wait for ever, and take the
   * answer of the next connection's first query.
   */
  override emit(event: string | symbol, ...values: unknown[]): boolean {
    return event === 'close' ? super.emit('close', false) : super.emit(event, ...values);
  }

  /**
   * Always true. When a write says that the socket is full, the driver forgets to tell begin() its connection: the
   * transaction fails with a TypeError, and stays open on a connection that others use.
   */
  override write(data: string | Uint8Array, encoding?: BufferEncoding | Done, done?: Done): boolean {
    super.write(data, encoding as BufferEncoding, done);
    return true;
  }
}

type Done = (error?: Error | null) => void;
