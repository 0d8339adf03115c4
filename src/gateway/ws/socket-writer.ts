// Writes what is shared past graphql-ws and ws to the connection: one text for all, encoded once, and a frame's head for
// each. Nothing is queued for a slow reader: while too much waits in its connection nothing more is pulled for it, and
// afterwards its stream goes on from where it was.
import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import { markDelivered } from '../../live/lag.ts';
import { watchStuck } from './liveness.ts';
import type { SharedResults } from '../graphql/shared-execution.ts';

/** The way out of one websocket. */
export type SocketWriter = {
  readonly isOpen: boolean;
  /** Undefined while there is room; else resolves when all that waits was taken, or the socket has closed. */
  room(): Promise<void> | undefined;
  /** Sends a text message, in two parts; the caller has seen that it is open. */
  send(start: Buffer, rest: Buffer): void;
};

/** More than this waits for no one. */
const maxBufferedBytes = 1024 * 1024;

/** `raw` is the connection below the websocket: it says when it is drained, and when nothing moves. */
export function createSocketWriter(socket: WebSocket, raw: Duplex): SocketWriter {
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
    send: (start, rest) => writeFrame(raw, start, rest),
  };
}

/** To copy a longer text costs more than to write it for itself. */
const maxCopiedBytes = 2048;

/**
 * Writes a text message of two parts as one frame (RFC 6455, section 5.2). Since nothing is compressed, ws writes its own
 * frames whole and at once, and they may stand before and after.
 */
function writeFrame(raw: Duplex, start: Buffer, rest: Buffer): void {
  const length = start.length + rest.length;
  const lengthBytes = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const startAt = 2 + lengthBytes;
  const together = length <= maxCopiedBytes;
  // Memory of the pool is held by whoever has a piece of it: what will wait has its own.
  const allocate = raw.writableLength > 0 ? Buffer.allocUnsafeSlow : Buffer.allocUnsafe;
  const frame = allocate(startAt + (together ? length : start.length));
  frame[0] = 0x81; // all of a text
  frame[1] = lengthBytes === 0 ? length : lengthBytes === 2 ? 126 : 127;
  if (lengthBytes === 2) frame.writeUInt16BE(length, 2);
  else if (lengthBytes === 8) frame.writeBigUInt64BE(BigInt(length), 2);
  frame.set(start, startAt);
  if (together) {
    frame.set(rest, startAt + start.length);
    raw.write(frame);
    return;
  }
  raw.cork();
  raw.write(frame);
  raw.write(rest);
  raw.uncork();
}

/**
 * Sends results as messages of the operation. The iterator that is returned yields nothing and ends with the results:
 * graphql-ws drives it, and completes the operation at its end.
 */
export function deliver(writer: SocketWriter, id: string, results: SharedResults): AsyncGenerator<never, void, void> {
  const start = Buffer.from(`{"id":${JSON.stringify(id)},"type":"next","payload":`);
  let ended = false;
  const end = async (): Promise<IteratorReturnResult<undefined>> => {
    ended = true;
    await results.return();
    return { done: true, value: undefined };
  };
  return {
    async next() {
      while (!ended) {
        const full = writer.room();
        if (full) await full;
        const result = ended ? null : await results.next();
        // Others of this socket may have filled it meanwhile: so many streams hold no more than one.
        for (let full = writer.room(); full && !ended; full = writer.room()) await full;
        // A token that was revoked meanwhile has closed its socket: it gets no more.
        if (result === null || ended || !writer.isOpen) return end();
        writer.send(start, (result.rest ??= Buffer.from(`${result.text}}`)));
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
