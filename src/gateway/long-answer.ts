// Long answers to HTTP requests, sent piece by piece in turns with others: to encode 13 MB at once holds the event loop for
// a tenth of a second.
import type { ServerResponse } from 'node:http';
import { giveWay } from '../turns.ts';

/** Characters that are encoded at once, and the most that is. */
const pieceLength = 64 * 1024;

/** Sends the text and ends the response, whose head is written or set; resolves early when the client has left. */
export async function endWith(response: ServerResponse, text: string): Promise<void> {
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
