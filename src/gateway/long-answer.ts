// Long answers to HTTP requests, sent piece by piece in turns with others: to encode 13 MB at once holds the event loop for
// a tenth of a second.
import type { ServerResponse } from 'node:http';
import { giveWay } from '../turns.ts';

/** Characters that are encoded at once, and the most that is. */
const pieceLength = 64 * 1024;

/** Sends a whole answer with its length, never to be cached; resolves early when the client has left. */
export async function sendText(
  response: ServerResponse,
  { status, headers, text }: { status: number; headers: Readonly<Record<string, string>>; text: string },
): Promise<void> {
  response.writeHead(status, {
    'cache-control': 'no-store',
    ...headers,
    'content-length': String(Buffer.byteLength(text)),
  });
  let at = 0;
  while (text.length - at > pieceLength && !response.destroyed) {
    const to = at + pieceLength;
    // Half of a pair would be encoded as U+FFFD.
    const end = isFirstOfPair(text.charCodeAt(to - 1)) ? to - 1 : to;
    const isTaken = response.write(text.slice(at, end));
    at = end;
    if (!isTaken) await untilTaken(response);
    const turn = giveWay();
    if (turn) await turn;
  }
  response.end(text.slice(at));
}

function isFirstOfPair(code: number): boolean {
  return code >= 0xd800 && code <= 0xdbff;
}

function untilTaken(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done).off('close', done);
      resolve();
    };
    response.on('drain', done).on('close', done);
    if (response.destroyed) done();
  });
}
