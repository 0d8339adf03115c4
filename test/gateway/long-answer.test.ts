// A long answer arrives whole, with its length, and a client that leaves in its middle ends the sending.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { sendPieces } from '../../src/gateway/http/long-answer.ts';
import { type Pieces, toJsonInTurns } from '../../src/graphql/json.ts';

async function serve(pieces: Pieces, ended = () => {}): Promise<{ server: Server; url: string }> {
  const server = createServer((_, response) => {
    sendPieces(response, { status: 200, headers: {}, ...pieces }).then(ended, ended);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` };
}

test('a long answer is the text of its pieces, and as long as it says', async () => {
  const value = Array.from({ length: 3_000 }, (_, n) => ({ n, text: '😀ä'.repeat(100) }));
  const pieces = await toJsonInTurns(value, async () => {});
  assert.ok(pieces.pieces.length > 10);
  const { server, url } = await serve(pieces);
  const answer = await fetch(url);
  assert.equal(Number(answer.headers.get('content-length')), Buffer.byteLength(JSON.stringify(value)));
  assert.deepEqual(await answer.json(), value);
  server.closeAllConnections();
  server.close();
});

test('a client that leaves in the middle ends the sending', async () => {
  const ended = Promise.withResolvers<void>();
  const pieces = Array<string>(1_000).fill('x'.repeat(50_000));
  const { server, url } = await serve({ pieces, bytes: 50_000_000 }, ended.resolve);
  const leaving = new AbortController();
  const answer = await fetch(url, { signal: leaving.signal });
  await answer.body?.getReader().read();
  leaving.abort();
  await ended.promise;
  server.closeAllConnections();
  server.close();
});
