// Connections that outlast the moment in which their token was checked: sockets, event streams, a runner's wait. Each
// ends when its token does. A revocation is heard at once from the bus; since messages may be lost, the database is asked
// every few seconds too.
import type { Actor } from '../../actor.ts';
import { channels } from '../../bus/bus.ts';
import type { Notification, Store } from '../../live/commit.ts';
import { readRevoked, type Revocation } from '../../project/revocation.ts';
import { startLoop } from '../background/loops.ts';

export type Sessions = {
  /**
   * Calls `end` once when the actor's token expires or is revoked, unless the returned function, which says that the
   * connection has ended, was called before. Nobody's connection never ends by this.
   */
  open(actor: Actor | null, end: (why: Why) => void): () => void;
  /** Number of connections that are open. */
  readonly size: number;
  close(): Promise<void>;
};

export type Why = 'expired' | 'revoked';
type Session = { end: (why: Why) => void };

/** A token's streams end within five seconds when the bus is away. */
const checkMs = 4_000;
const longestTimerMs = 2 ** 31 - 1;

export async function startSessions(store: Store, report: (error: unknown, name: string) => void): Promise<Sessions> {
  const sessions = new Map<string, Set<Session>>(); // by token
  const revoked = new Set<string>(); // heard of: what authenticated just before is told too
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
  const forget = store.bus.onBreak(() => void check().catch(() => {})); // the loop looks again, and reports
  const step = async () => {
    await check();
    return false;
  };
  const loop = startLoop({ name: 'tokens', everyMs: checkMs, step, report });

  return {
    open(actor, end) {
      if (!actor) return () => {};
      const { tokenId, expiresAt } = actor;
      const ofToken = sessions.get(tokenId) ?? new Set();
      sessions.set(tokenId, ofToken);
      let timer: NodeJS.Timeout | undefined;
      const leave = () => {
        clearTimeout(timer);
        ofToken.delete(session);
        if (ofToken.size === 0 && sessions.get(tokenId) === ofToken) sessions.delete(tokenId);
      };
      const session: Session = {
        end(why) {
          leave();
          end(why);
        },
      };
      ofToken.add(session);
      const wait = () => {
        const leftMs = expiresAt === null ? Infinity : expiresAt.getTime() - Date.now();
        if (leftMs <= 0) return session.end('expired');
        if (leftMs < Infinity) timer = setTimeout(wait, Math.min(leftMs, longestTimerMs)).unref();
      };
      wait();
      if (revoked.has(tokenId)) setImmediate(() => ofToken.has(session) && session.end('revoked'));
      return leave;
    },
    get size() {
      return [...sessions.values()].reduce((sum, { size }) => sum + size, 0);
    },
    async close() {
      forget();
      await loop.stop();
      await unsubscribe();
    },
  };
}

/** Only gateways write to the channel. */
function revocationsOf(message: string): Revocation[] {
  return ((JSON.parse(message) as Notification).records ?? []) as Revocation[];
}
