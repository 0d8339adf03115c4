// All that a Redis is told, as it comes (MONITOR). Over a plain socket: ioredis loses count of its answers when commands
// of others come before the first one's "OK".
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** `onLine` gets each command, its words quoted as Redis does. Destroying the socket ends it; its `close` says that it ended. */
export function monitor(port: number, onLine: (line: string) => void): Socket {
  const socket = connect({ port, host: '127.0.0.1' });
  socket.on('error', () => {});
  socket.write('MONITOR\r\n');
  createInterface({ input: socket })
    .on('error', () => {})
    .on('line', onLine);
  return socket;
}
