// Sends HTTP answers piece by piece in turns with other work: encoding 13 MB at once holds up the
// event loop for a tenth of a second.
import type { ServerResponse } from 'node:http';
import type { Pieces } from '../../graphql/json.ts';
import { giveWay } from '../../turns.ts';
import { watchStuck } from '../ws/liveness.ts';

/**
 * Answers above this size are watched: a client that does not take the bytes is cut off, since they
 * count against the memory that all answers share.
 */
const watchedBytes = 64 * 1024;

/** Sends a whole answer with its length and `no-store`. Resolves early when the client has gone. */
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
    if (!response.write(piece)) await untilDrained(response);
    const turn = giveWay();
    if (turn) await turn;
  }
  response.end(pieces.at(-1));
}

function untilDrained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done).off('close', done);
      resolve();
    };
    response.on('drain', done).on('close', done);
    if (response.destroyed) done();
  });
}
