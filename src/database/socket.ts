// The socket under a connection to a Postgres server. postgres.js 3.4.9 never forgets the query that was under way when a
// connection broke: it takes what the server says to the next connection for that query's error. A server that lets nobody
// in (55000, 57P03, 53300) is then asked again without a pause, and whoever asks for rows waits until it does.
import { connect, type Socket } from 'node:net';

type Target = { host: string[]; port: number[]; path?: string };

/**
 * Connects in the background. A server that closes is an error of the socket, which fails the query that waits; 'close'
 * alone would begin the next connection for it.
 */
export function openSocket({ host: [host = 'localhost'], port: [port = 5432], path }: Target): Socket {
  const socket = path ? connect(path) : connect(port, host);
  return socket.once('end', () => {
    socket.destroy(Object.assign(new Error('The server closed the connection.'), { code: 'CONNECTION_CLOSED' }));
  });
}

/** Whether it can be used: under TLS, and to choose among several hosts, the driver makes its own. */
export function isPlain({ ssl, host }: { ssl: unknown; host: string[] }): boolean {
  return !ssl && host.length === 1;
}
