// Writes shared results to the connection itself, past graphql-ws and ws: their text is encoded
// once, and only the head of the frame differs for each socket. Nothing is queued for a slow
// reader: while much waits in its connection, no more is pulled from its stream.
import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import { markDelivered } from '../../live/lag.ts';
import { watchStuck } from './liveness.ts';
import type { SharedResults } from '../graphql/shared-execution.ts';

/** Writes messages to one websocket. */
export type SocketWriter = {
  readonly isOpen: boolean;
  /**
   * Undefined while there is room. Else a promise that resolves when all waiting bytes were taken,
   * or the socket has closed.
   */
  room(): Promise<void> | undefined;
  /** Sends a text message that is given in two parts. The caller checks `isOpen` first. */
  send(start: Buffer, rest: Buffer): void;
};

/** Upper bound of bytes that wait in a connection before `room` makes its streams wait. */
const maxBufferedBytes = 1024 * 1024;

/** `raw` is the TCP connection below the websocket: its `drain` event says that there is room. */
export function createSocketWriter(socket: WebSocket, raw: Duplex): SocketWriter {
  let waiting: Promise<void> | undefined;
  let resolveWaiting = () => {};
  const proceed = () => {
    waiting = undefined;
    resolveWaiting();
  };
  raw.on('drain', proceed);
  const stopWatching = watchStuck(raw, () => socket.terminate());
  socket.once('close', () => {
    proceed();
    stopWatching();
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

/** Up to this length the text is copied behind its head: a second write would cost more. */
const maxCopiedBytes = 2048;

/**
 * Writes a text message of two parts as one frame (RFC 6455, section 5.2). That is safe beside ws:
 * without compression, ws writes its own frames whole and at once.
 */
function writeFrame(raw: Duplex, start: Buffer, rest: Buffer): void {
  const length = start.length + rest.length;
  const lengthBytes = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const headLength = 2 + lengthBytes;
  const isCopied = length <= maxCopiedBytes;
  // `Buffer.allocUnsafe` takes a slice of a pool, and a slice keeps the whole pool in memory. A
  // frame that will wait gets memory of its own.
  const allocate = raw.writableLength > 0 ? Buffer.allocUnsafeSlow : Buffer.allocUnsafe;
  const frame = allocate(headLength + (isCopied ? length : start.length));
  frame[0] = 0x81; // a whole text message
  frame[1] = lengthBytes === 0 ? length : lengthBytes === 2 ? 126 : 127;
  if (lengthBytes === 2) frame.writeUInt16BE(length, 2);
  else if (lengthBytes === 8) frame.writeBigUInt64BE(BigInt(length), 2);
  frame.set(start, headLength);
  if (isCopied) {
    frame.set(rest, headLength + start.length);
    raw.write(frame);
    return;
  }
  raw.cork();
  raw.write(frame);
  raw.write(rest);
  raw.uncork();
}

/**
 * Sends results as messages of the operation `id`. The returned iterator yields nothing and ends
 * with the results: graphql-ws drives it, and completes the operation at its end.
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
        // Other streams of this socket may have filled it meanwhile. Waiting again bounds all of
        // them together by one message beyond the limit.
        for (let full = writer.room(); full && !ended; full = writer.room()) await full;
        // A revoked token has closed its socket meanwhile: nothing more is sent.
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
