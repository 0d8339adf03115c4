// Sessions: connections that last after their token was checked, i.e. websockets, event streams and
// the waits of runners. Each is ended when its token expires or is revoked. A revocation comes at
// once over the bus; since messages may be lost, the database is asked every 4 s too.
import type { Actor } from '../../actor.ts';
import { channels } from '../../bus/bus.ts';
import type { Notification, Store } from '../../live/commit.ts';
import { readRevoked, type Revocation } from '../../project/revocation.ts';
import { startLoop } from '../background/loops.ts';
import { Closers } from '../closers.ts';

export type Why = 'expired' | 'revoked';
type Session = { end: (why: Why) => void };

/**
 * Pause between two looks into the database. With it, the streams of a revoked token end within 5 s
 * even when the bus is away.
 */
const checkMs = 4_000;
/** The longest delay that `setTimeout` takes, about 25 days. */
const longestTimerMs = 2 ** 31 - 1;

export class Sessions {
  readonly #store: Store;
  readonly #sessions = new Map<string, Set<Session>>(); // by id of the token
  // Tokens whose revocation came over the bus. A connection that was authenticated just before its
  // token was revoked opens its session after the message, and is ended by this.
  readonly #revoked = new Set<string>();
  readonly #closers = new Closers();

  static async start(store: Store, report: (error: unknown, name: string) => void): Promise<Sessions> {
    const sessions = new Sessions(store);
    const closers = sessions.#closers;
    closers.defer(await store.bus.subscribe(channels.tokens, (message) => sessions.#hear(message)));
    const step = () => sessions.#check().then(() => false);
    const loop = startLoop({ name: 'tokens', everyMs: checkMs, step, report });
    closers.defer(() => loop.stop());
    // A check that fails here is repeated, and reported, by the loop.
    closers.defer(store.bus.onBreak(() => void sessions.#check().catch(() => {})));
    return sessions;
  }

  private constructor(store: Store) {
    this.#store = store;
  }

  /**
   * Calls `end` once when the actor's token expires or is revoked. The returned function must be
   * called when the connection has closed; `end` is not called after it. A connection without an
   * actor is never ended by this.
   */
  open(actor: Actor | null, end: (why: Why) => void): () => void {
    if (!actor) return () => {};
    const { tokenId, expiresAt } = actor;
    const sessionsOfToken = this.#sessions.get(tokenId) ?? new Set();
    this.#sessions.set(tokenId, sessionsOfToken);
    let timer: NodeJS.Timeout | undefined;
    const leave = () => {
      clearTimeout(timer);
      sessionsOfToken.delete(session);
      const isLast = sessionsOfToken.size === 0 && this.#sessions.get(tokenId) === sessionsOfToken;
      if (isLast) this.#sessions.delete(tokenId);
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
    if (this.#revoked.has(tokenId)) setImmediate(() => sessionsOfToken.has(session) && session.end('revoked'));
    return leave;
  }

  /** Number of connections that are open. */
  get size(): number {
    return [...this.#sessions.values()].reduce((sum, { size }) => sum + size, 0);
  }

  async close(): Promise<void> {
    await this.#closers.close();
  }

  #hear(message: string): void {
    for (const { tokenId } of revocationsOf(message)) {
      this.#revoked.add(tokenId);
      this.#endAll(tokenId);
    }
  }

  async #check(): Promise<void> {
    if (this.#sessions.size === 0) return;
    for (const tokenId of await readRevoked(this.#store.database.db, [...this.#sessions.keys()])) this.#endAll(tokenId);
  }

  #endAll(tokenId: string): void {
    for (const session of this.#sessions.get(tokenId) ?? []) session.end('revoked');
  }
}

/** Only gateways publish on the channel, so the shape of its messages is trusted. */
function revocationsOf(message: string): Revocation[] {
  return ((JSON.parse(message) as Notification).records ?? []) as Revocation[];
}
