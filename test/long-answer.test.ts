// A long answer arrives whole, however its characters fall into pieces, and others are served while it is sent.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { sendText } from '../src/gateway/long-answer.ts';

test('a long answer is the text that was given, also where a character of two parts falls between two pieces', async () => {
  for (const before of ['', 'x']) {
    const text = before + '😀'.repeat(300_000);
    const server = createServer((_, response) => void sendText(response, { status: 200, headers: {}, text })).listen(
      0,
      '127.0.0.1',
    );
    await once(server, 'listening');
    const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    assert.ok((await answer.text()) === text, 'the text arrived as it was');
    server.closeAllConnections();
    server.close();
  }
});

test('a client that leaves in the middle ends the sending', async () => {
  const ended = Promise.withResolvers<void>();
  const server = createServer((_, response) => {
    sendText(response, { status: 200, headers: {}, text: 'x'.repeat(50_000_000) }).then(ended.resolve, ended.reject);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const leaving = new AbortController();
  const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`, { signal: leaving.signal });
  await answer.body?.getReader().read();
  leaving.abort();
  await ended.promise;
  server.closeAllConnections();
  server.close();
});
