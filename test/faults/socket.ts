// A subscriber's socket: graphql-transport-ws by hand, since a test wants to cut it, pause it and count what comes.
import { WebSocket } from 'ws';

export type Message = { type: string; payload?: unknown };

/** Resolves when the stream completed, was refused, or the socket is gone; `onNext` gets every result. */
export function subscribe(options: {
  url: string;
  token: string;
  query: string;
  variables: Record<string, unknown>;
  onNext(data: Record<string, unknown>): void;
}): { ended: Promise<'complete' | 'cut'>; cut(): void; pause(ms: number): void } {
  const socket = new WebSocket(options.url, 'graphql-transport-ws', { handshakeTimeout: 3_000 });
  const send = (message: object) => socket.send(JSON.stringify(message));
  let silence = watch();
  const ended = new Promise<'complete' | 'cut'>((resolve) => {
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(silence);
      resolve('cut');
    });
    socket.on('open', () => send({ type: 'connection_init', payload: { Authorization: `Bearer ${options.token}` } }));
    socket.on('message', (raw: Buffer) => {
      clearTimeout(silence);
      silence = watch();
      const message = JSON.parse(raw.toString()) as Message;
      if (message.type === 'ping') send({ type: 'pong' });
      if (message.type === 'connection_ack') {
        const { query, variables } = options;
        send({ id: '1', type: 'subscribe', payload: { query, variables } });
      }
      if (message.type === 'next') {
        const { data, errors } = message.payload as { data?: Record<string, unknown>; errors?: unknown };
        if (data && !errors) options.onNext(data);
        else socket.terminate();
      }
      if (message.type === 'error') socket.terminate();
      if (message.type === 'complete') {
        resolve('complete');
        socket.close();
      }
    });
  });
  return {
    ended,
    cut: () => socket.terminate(),
    pause(ms) {
      if (socket.readyState !== WebSocket.OPEN) return;
      socket.pause();
      setTimeout(() => socket.resume(), ms).unref();
    },
  };

  /** A connection on which nothing comes, not even a ping, is taken for dead. */
  function watch(): NodeJS.Timeout {
    return setTimeout(() => socket.terminate(), 15_000).unref();
  }
}
