// Cuts off peers of long connections that make no progress: their clients reconnect and resume by
// cursor. A peer that is slow but still takes bytes stays.
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import { liveFigures, watchBuffers } from '../../metrics-registry.ts';

export type Patience = {
  /** Milliseconds without a byte taken, while bytes wait, after which a peer counts as stuck. */
  stuckMs: number;
  /** Milliseconds from one ping to the next. */
  pingEveryMs: number;
};

const defaults: Patience = { stuckMs: 30_000, pingEveryMs: 12_000 };
const checksPerStuck = 6;
/** Unanswered pings after which a peer counts as gone. */
const maxUnanswered = 2;
/**
 * Upper bound of bytes that wait for a peer whose requests are still read. Above it reading pauses,
 * since more answers would only add to them.
 */
const maxAnswerBytes = 2 * 1024 * 1024;

/**
 * Calls `cut` once when bytes wait for a peer that has taken none for `stuckMs`. Until the returned
 * function is called, the waiting bytes count in the metrics. Messages from the peer are no
 * progress.
 */
export function watchStuck(connection: Duplex, cut: () => void, { stuckMs } = defaults): () => void {
  let taken = '';
  let since = performance.now();
  const check = () => {
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
  const timer = setInterval(check, stuckMs / checksPerStuck).unref();
  const stopCounting = watchBuffers(() => connection.writableLength);
  return () => {
    clearInterval(timer);
    stopCounting();
  };
}

/**
 * Returns a text that changes whenever the peer takes bytes. Node counts a large write only once
 * all of it was taken, so the queue of its socket handle is part of the text.
 */
function takenOf(connection: Duplex): string {
  const written = connection instanceof Socket ? connection.bytesWritten : 0;
  const { _handle: handle } = connection as { _handle?: { writeQueueSize?: number } | null };
  return `${written - connection.writableLength} ${handle?.writeQueueSize}`;
}

/**
 * Pings a peer and ends its socket when two pings stay unanswered. While bytes wait no ping is
 * sent: it would queue behind them, and `watchStuck` watches the peer already.
 */
export function sendPings(socket: WebSocket, raw: Duplex, { pingEveryMs } = defaults): () => void {
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

/** Stops reading from a peer that sends requests but does not take the answers, until it has taken them. */
export function holdBack(socket: WebSocket, raw: Duplex): void {
  const look = () => void (raw.writableLength > maxAnswerBytes && socket.pause());
  socket.on('message', look);
  socket.on('ping', look);
  raw.on('drain', () => socket.resume());
}
