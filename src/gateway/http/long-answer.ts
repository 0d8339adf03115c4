// Answers to HTTP requests, sent piece by piece in turns with others: to encode 13 MB at once holds the event loop for a
// tenth of a second.
import type { ServerResponse } from 'node:http';
import type { Pieces } from '../../graphql/json.ts';
import { giveWay } from '../../turns.ts';
import { watchStuck } from '../ws/liveness.ts';

/** Longer answers are watched: whoever does not take them is cut off, since their bytes are missing to others. */
const watchedBytes = 64 * 1024;

/** Sends a whole answer with its length, never to be cached; resolves early when the client has left. */
export async function sendPieces(
  response: ServerResponse,
  { status, headers, pieces, bytes }: Pieces & { status: number; headers: Readonly<Record<string, string>> },
): Promise<void> {
  response.writeHead(status, { 'cache-control': 'no-store', ...headers, 'content-length': String(bytes) });
  if (bytes > watchedBytes && response.socket) {
    response.once(
      'close',
      watchStuck(response.socket, () => void response.destroy()),
    );
  }
  for (const piece of pieces.slice(0, -1)) {
    if (response.destroyed) return;
    if (!response.write(piece)) await untilTaken(response);
    const turn = giveWay();
    if (turn) await turn;
  }
  response.end(pieces.at(-1));
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
