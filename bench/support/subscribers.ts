// Many websockets that count messages without parsing them, since a client must cost less than the
// server under measurement.
import { once } from 'node:events';
import { WebSocket } from 'ws';

export type Subscribers = {
  /** Resolves when every socket has received `messages` messages since it opened. */
  until(messages: number): Promise<void>;
  /** Size of the newest message, in bytes. */
  lastBytes(): number;
  close(): Promise<void>;
};

export type Subscription = { query: string; variables: Record<string, unknown>; token: string | null };

const openAtOnce = 50;
const patienceMs = 60_000;

/**
 * Opens `count` sockets, each with one subscription, or plain ones for null; resolves when all are
 * open.
 */
export async function openSubscribers(
  url: string,
  count: number,
  subscription: Subscription | null,
): Promise<Subscribers> {
  const sockets: WebSocket[] = [];
  const received = new Map<WebSocket, number>();
  let bytes = 0;
  let wanted = Infinity;
  let missing = 0;
  let wake = () => {};

  const hear = (socket: WebSocket, data: Buffer) => {
    if (subscription && !data.subarray(0, 80).includes('"next"')) return;
    const messages = (received.get(socket) ?? 0) + 1;
    received.set(socket, messages);
    bytes = data.length;
    if (messages === wanted && --missing === 0) wake();
  };
  const open = async () => {
    const socket = new WebSocket(url, subscription ? ['graphql-transport-ws'] : [], { perMessageDeflate: false });
    sockets.push(socket);
    received.set(socket, 0);
    await once(socket, 'open');
    if (subscription) await begin(socket, subscription);
    socket.on('message', (data: Buffer) => hear(socket, data));
    socket.on('close', (code, reason) => code === 1005 || console.error(`a socket was closed: ${code} ${reason}`));
  };
  for (let left = count; left > 0; left -= openAtOnce) {
    await Promise.all(Array.from({ length: Math.min(left, openAtOnce) }, open));
  }

  return {
    lastBytes: () => bytes,
    async until(messages) {
      wanted = messages;
      missing = [...received.values()].filter((so_far) => so_far < messages).length;
      if (missing === 0) return;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      wake = resolve;
      const late = setTimeout(
        () => reject(new Error(`${missing} of ${count} subscribers lack message ${messages}.`)),
        patienceMs,
      );
      await promise.finally(() => clearTimeout(late));
    },
    async close() {
      const closed = sockets.map((socket) => once(socket, 'close'));
      for (const socket of sockets) socket.close();
      await Promise.all(closed);
    },
  };
}

async function begin(socket: WebSocket, { query, variables, token }: Subscription): Promise<void> {
  const payload = token ? { authorization: `Bearer ${token}` } : {};
  socket.send(JSON.stringify({ type: 'connection_init', payload }));
  const [answer] = (await once(socket, 'message')) as [Buffer];
  if (!String(answer).includes('connection_ack')) throw new Error(`No connection_ack: ${String(answer)}`);
  socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query, variables } }));
}
