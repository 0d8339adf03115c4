// Sessions: connections that last after their token was checked, i.e. websockets, event streams and
// the waits of runners. Each is ended when its token expires or is revoked. A revocation comes at
// once over the bus; since messages may be lost, the database is asked every 4 s too.
import type { Actor } from '../../actor.ts';
import { channels } from '../../bus/bus.ts';
import type { Notification, Store } from '../../live/commit.ts';
import { readRevoked, type Revocation } from '../../project/revocation.ts';
import { startLoop } from '../background/loops.ts';

export type Sessions = {
  /**
   * Calls `end` once when the actor's token expires or is revoked. The returned function must be
   * called when the connection has closed; `end` is not called after it. A connection without an
   * actor is never ended by this.
   */
  open(actor: Actor | null, end: (why: Why) => void): () => void;
  /** Number of connections that are open. */
  readonly size: number;
  close(): Promise<void>;
};

export type Why = 'expired' | 'revoked';
type Session = { end: (why: Why) => void };

/**
 * Pause between two looks into the database. With it, the streams of a revoked token end within 5 s
 * even when the bus is away.
 */
const checkMs = 4_000;
/** The longest delay that `setTimeout` takes, about 25 days. */
const longestTimerMs = 2 ** 31 - 1;

export async function startSessions(store: Store, report: (error: unknown, name: string) => void): Promise<Sessions> {
  const sessions = new Map<string, Set<Session>>(); // by id of the token
  // Tokens whose revocation came over the bus. A connection that was authenticated just before its
  // token was revoked opens its session after the message, and is ended by this.
  const revoked = new Set<string>();
  const endAll = (tokenId: string) => {
    for (const session of sessions.get(tokenId) ?? []) session.end('revoked');
  };
  const check = async () => {
    if (sessions.size === 0) return;
    for (const tokenId of await readRevoked(store.database.db, [...sessions.keys()])) endAll(tokenId);
  };
  const unsubscribe = await store.bus.subscribe(channels.tokens, (message) => {
    for (const { tokenId } of revocationsOf(message)) {
      revoked.add(tokenId);
      endAll(tokenId);
    }
  });
  // A check that fails here is repeated, and reported, by the loop below.
  const stopListening = store.bus.onBreak(() => void check().catch(() => {}));
  const step = async () => {
    await check();
    return false;
  };
  const loop = startLoop({ name: 'tokens', everyMs: checkMs, step, report });

  return {
    open(actor, end) {
      if (!actor) return () => {};
      const { tokenId, expiresAt } = actor;
      const sessionsOfToken = sessions.get(tokenId) ?? new Set();
      sessions.set(tokenId, sessionsOfToken);
      let timer: NodeJS.Timeout | undefined;
      const leave = () => {
        clearTimeout(timer);
        sessionsOfToken.delete(session);
        if (sessionsOfToken.size === 0 && sessions.get(tokenId) === sessionsOfToken) sessions.delete(tokenId);
      };
      const session: Session = {
        end(why) {
          leave();
          end(why);
        },
      };
      sessionsOfToken.add(session);
      const wait = () => {
        const remainingMs = expiresAt === null ? Infinity : expiresAt.getTime() - Date.now();
        if (remainingMs <= 0) return session.end('expired');
        if (remainingMs < Infinity) timer = setTimeout(wait, Math.min(remainingMs, longestTimerMs)).unref();
      };
      wait();
      if (revoked.has(tokenId)) setImmediate(() => sessionsOfToken.has(session) && session.end('revoked'));
      return leave;
    },
    get size() {
      return [...sessions.values()].reduce((sum, { size }) => sum + size, 0);
    },
    async close() {
      stopListening();
      await loop.stop();
      await unsubscribe();
    },
  };
}

/** Only gateways publish on the channel, so the shape of its messages is trusted. */
function revocationsOf(message: string): Revocation[] {
  return ((JSON.parse(message) as Notification).records ?? []) as Revocation[];
}
