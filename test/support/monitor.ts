// Reads the commands that a Redis receives (MONITOR), over a plain socket, because ioredis
// miscounts answers when commands of others come before the first "OK".
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

/**
 * Calls `onLine` with each command, its words quoted as Redis does. The caller destroys the socket
 * to end it; its `close` event tells of an end.
 */
export function monitor(port: number, onLine: (line: string) => void): Socket {
  const socket = connect({ port, host: '127.0.0.1' });
  socket.on('error', () => {});
  socket.write('MONITOR\r\n');
  createInterface({ input: socket })
    .on('error', () => {})
    .on('line', onLine);
  return socket;
}
