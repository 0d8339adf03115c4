// Which peers of lasting connections are still there, and take what they are sent. Whoever takes nothing is cut off, so that
// its client comes back by its cursor; whoever is only slow is left alone.
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import { liveFigures, watchBuffers } from '../../metrics-registry.ts';

export type Patience = {
  /** Milliseconds after which a peer that takes nothing, while something waits for it, is gone or stuck. */
  stuckMs: number;
  /** Milliseconds from one ping to the next. */
  pingEveryMs: number;
};

const usual: Patience = { stuckMs: 30_000, pingEveryMs: 12_000 };
const looksPerStuck = 6;
/** A peer that has answered none of so many pings when the next one is due is gone. */
const maxUnanswered = 2;
/** With so many bytes waiting for it, a peer is not listened to: its requests would only add to them. */
const maxAnswerBytes = 2 * 1024 * 1024;

/**
 * Calls `cut` once when something waits for a peer that has taken nothing for the time; counts what waits, until the
 * returned function is called. What the peer says is no progress, nor what else is put in its way.
 */
export function watchStuck(connection: Duplex, cut: () => void, { stuckMs } = usual): () => void {
  let taken = '';
  let since = performance.now();
  const look = () => {
    const now = connection.writableLength === 0 ? 'all' : takenOf(connection);
    if (now === 'all' || now !== taken) {
      [taken, since] = [now, performance.now()];
      return;
    }
    if (performance.now() - since < stuckMs) return;
    clearInterval(timer);
    liveFigures.stuck.inc();
    cut();
  };
  const timer = setInterval(look, stuckMs / looksPerStuck).unref();
  const forget = watchBuffers(() => connection.writableLength);
  return () => {
    clearInterval(timer);
    forget();
  };
}

/** Changes whenever the peer takes something. A large write is one to Node, and known in part to its handle only. */
function takenOf(connection: Duplex): string {
  const written = connection instanceof Socket ? connection.bytesWritten : 0;
  const { _handle: handle } = connection as { _handle?: { writeQueueSize?: number } | null };
  return `${written - connection.writableLength} ${handle?.writeQueueSize}`;
}

/** A slow reader answers late, since pings stand in line: while anything waits for it, it is `watchStuck` that watches. */
export function sendPings(socket: WebSocket, raw: Duplex, { pingEveryMs } = usual): () => void {
  let unanswered = 0;
  socket.on('pong', () => (unanswered = 0));
  const timer = setInterval(() => {
    if (raw.writableLength > 0) return;
    if (unanswered >= maxUnanswered) return socket.terminate();
    unanswered++;
    socket.ping();
  }, pingEveryMs);
  return () => clearInterval(timer);
}

/** Reads nothing more from a peer that asks and asks but does not take the answers, until it has taken them. */
export function holdBack(socket: WebSocket, raw: Duplex): void {
  const look = () => void (raw.writableLength > maxAnswerBytes && socket.pause());
  socket.on('message', look);
  socket.on('ping', look);
  raw.on('drain', () => socket.resume());
}
