// Writes what is shared past graphql-ws to its socket: one text for all, the message's frame around it for each. Nothing
// is queued for a slow reader: while too much waits in its socket nothing more is pulled for it, and afterwards its
// stream goes on from where it was.
import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import { markDelivered } from '../live/lag.ts';
import { watchStuck } from './alive.ts';
import type { SharedResults } from './shared.ts';

/** The way out of one websocket. */
export type Outlet = {
  readonly isOpen: boolean;
  /** Undefined while there is room; else resolves when all that waits was taken, or the socket has closed. */
  room(): Promise<void> | undefined;
  send(text: string): void;
};

/** More than this waits for no one. */
const maxBufferedBytes = 1024 * 1024;

/** `raw` is the connection below the websocket: it says when it is drained, and when nothing moves. */
export function createOutlet(socket: WebSocket, raw: Duplex): Outlet {
  let waiting: Promise<void> | undefined;
  let resolveWaiting = () => {};
  const proceed = () => {
    waiting = undefined;
    resolveWaiting();
  };
  raw.on('drain', proceed);
  const left = watchStuck(raw, () => socket.terminate());
  socket.once('close', () => {
    proceed();
    left();
  });
  return {
    get isOpen() {
      return socket.readyState === socket.OPEN;
    },
    room() {
      if (socket.readyState !== socket.OPEN || raw.writableLength <= maxBufferedBytes) return undefined;
      return (waiting ??= new Promise((resolve) => (resolveWaiting = resolve)));
    },
    send: (text) => socket.send(text),
  };
}

/**
 * Sends results as messages of the operation. The iterator that is returned yields nothing and ends with the results:
 * graphql-ws drives it, and completes the operation at its end.
 */
export function deliver(outlet: Outlet, id: string, results: SharedResults): AsyncGenerator<never, void, void> {
  const head = `{"id":${JSON.stringify(id)},"type":"next","payload":`;
  let ended = false;
  const end = async (): Promise<IteratorReturnResult<undefined>> => {
    ended = true;
    await results.return();
    return { done: true, value: undefined };
  };
  return {
    async next() {
      while (!ended) {
        await outlet.room();
        const result = ended ? null : await results.next();
        // Others of this socket may have filled it meanwhile: so many streams hold no more than one.
        for (let full = outlet.room(); full && !ended; full = outlet.room()) await full;
        // A token that was revoked meanwhile has closed its socket: it gets no more.
        if (result === null || ended || !outlet.isOpen) return end();
        outlet.send(`${head}${result.text}}`);
        markDelivered(result.event);
      }
      return { done: true, value: undefined };
    },
    return: end,
    async throw(error) {
      await end();
      throw error;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
    async [Symbol.asyncDispose]() {
      await end();
    },
  };
}
