// Messages over Redis: one subscribing connection, with any number of listeners for a channel.
// Redis does not keep messages, so after each break, once all channels are subscribed again, every
// `onBreak` listener is called to look again.
import { type Connection, connect, isRefused } from './redis-connection.ts';

type Listener = (message: string) => void;
/** One channel. `subscribed` settles when Redis has answered SUBSCRIBE. */
type Subscription = { readonly listeners: Set<{ call: Listener }>; subscribed: Promise<void> };

/** Pause between two pings, which find a dead connection that would else only be silent. */
const pingMs = 5_000;

export class RedisMessages {
  readonly #subscriptions = new Map<string, Subscription>();
  readonly #breaks = new Set<{ call: () => void }>();
  readonly #connection: Connection;
  readonly #onTrouble: (error: unknown) => void;
  readonly #timer: NodeJS.Timeout;
  /** Whether messages may have been missed since the last call of the `onBreak` listeners. */
  #missed = false;
  #round = 0;

  /**
   * `onAway` gets failures of the connection; `onTrouble` those of listeners, and refusals of
   * Redis.
   */
  constructor(url: string, onAway: (error: Error) => void, onTrouble: (error: unknown) => void) {
    this.#onTrouble = onTrouble;
    this.#connection = connect(url, onAway);
    const { redis } = this.#connection;
    redis.on('close', () => (this.#missed = true));
    redis.on('ready', () => void this.#resubscribeAll());
    redis.on('message', (channel: string, message: string) => {
      for (const { call } of [...(this.#subscriptions.get(channel)?.listeners ?? [])]) {
        guarded(() => call(message), onTrouble);
      }
    });
    this.#timer = setInterval(() => {
      this.#connection.run((to) => to.ping()).catch(() => {}); // a dead connection is replaced by itself
    }, pingMs).unref();
  }

  async subscribe(channel: string, listener: Listener): Promise<() => Promise<void>> {
    const subscription = this.#subscriptions.get(channel) ?? { listeners: new Set(), subscribed: Promise.resolve() };
    const entry = { call: listener };
    subscription.listeners.add(entry);
    if (this.#subscriptions.get(channel) !== subscription) {
      this.#subscriptions.set(channel, subscription);
      subscription.subscribed = this.#request(channel);
    }
    try {
      await subscription.subscribed;
    } catch (error) {
      this.#leave(channel, subscription, entry);
      throw error;
    }
    return async () => this.#leave(channel, subscription, entry);
  }

  onBreak(listener: () => void): () => void {
    const entry = { call: listener };
    this.#breaks.add(entry);
    return () => void this.#breaks.delete(entry);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#subscriptions.clear();
    await this.#connection.close();
  }

  /**
   * Sends SUBSCRIBE. Rejects only when Redis refuses. While Redis is away the channel is subscribed
   * later, and a break is reported.
   */
  async #request(channel: string): Promise<void> {
    const { redis } = this.#connection;
    try {
      await this.#connection.run((to) => to.subscribe(channel));
    } catch (error) {
      if (isRefused(error)) throw error;
      this.#missed = true;
      if (redis.status === 'ready') redis.disconnect(true);
    }
  }

  async #resubscribeAll(): Promise<void> {
    const ownRound = ++this.#round;
    const results = await Promise.allSettled([...this.#subscriptions.keys()].map((channel) => this.#request(channel)));
    for (const result of results) if (result.status === 'rejected') this.#onTrouble(result.reason);
    // another break came meanwhile: its round reports it
    if (!this.#missed || ownRound !== this.#round || this.#connection.redis.status !== 'ready') return;
    this.#missed = false;
    for (const { call } of this.#breaks) guarded(call, this.#onTrouble);
  }

  #leave(channel: string, subscription: Subscription, entry: { call: Listener }): void {
    const { listeners } = subscription;
    if (!listeners.delete(entry) || listeners.size > 0 || this.#subscriptions.get(channel) !== subscription) return;
    this.#subscriptions.delete(channel);
    const { redis } = this.#connection;
    if (redis.status === 'ready') this.#connection.run((to) => to.unsubscribe(channel)).catch(() => {});
  }
}

/** Calls a listener. One that throws must neither end the process nor stop the others. */
function guarded(call: () => void, onTrouble: (error: unknown) => void): void {
  try {
    call();
  } catch (error) {
    onTrouble(error);
  }
}
