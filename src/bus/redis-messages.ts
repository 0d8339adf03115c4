// Messages over Redis: one subscribing connection, with any number of listeners for a channel.
// Redis does not keep messages, so after each break, once all channels are subscribed again, every
// `onBreak` listener is called to look again.
import type { Bus } from './bus.ts';
import { connect, isRefused } from './redis-connection.ts';

export type Messages = Pick<Bus, 'subscribe' | 'onBreak' | 'close'>;

type Listener = (message: string) => void;
/** One channel. `subscribed` settles when Redis has answered SUBSCRIBE. */
type Subscription = { readonly listeners: Set<{ call: Listener }>; subscribed: Promise<void> };

/** Pause between two pings, which find a dead connection that would else only be silent. */
const pingMs = 5_000;

/**
 * `onAway` gets failures of the connection; `onTrouble` those of listeners, and refusals of Redis.
 */
export function openMessages(
  url: string,
  onAway: (error: Error) => void,
  onTrouble: (error: unknown) => void,
): Messages {
  const subscriptions = new Map<string, Subscription>();
  const breaks = new Set<() => void>();
  const connection = connect(url, onAway);
  const { redis } = connection;
  let missed = false;
  let round = 0;
  redis.on('close', () => (missed = true));
  redis.on('ready', () => void resubscribeAll());
  redis.on('message', (channel: string, message: string) => {
    for (const { call } of [...(subscriptions.get(channel)?.listeners ?? [])]) guarded(() => call(message), onTrouble);
  });
  const asking = setInterval(() => {
    connection.run((to) => to.ping()).catch(() => {}); // a dead connection is replaced by itself
  }, pingMs).unref();

  /**
   * Subscribes to a channel. Rejects only when Redis refuses. While Redis is away the channel is
   * subscribed later, and a break is reported.
   */
  async function subscribe(channel: string): Promise<void> {
    try {
      await connection.run((to) => to.subscribe(channel));
    } catch (error) {
      if (isRefused(error)) throw error;
      missed = true;
      if (redis.status === 'ready') redis.disconnect(true);
    }
  }

  async function resubscribeAll(): Promise<void> {
    const ownRound = ++round;
    const results = await Promise.allSettled([...subscriptions.keys()].map(subscribe));
    for (const result of results) if (result.status === 'rejected') onTrouble(result.reason);
    // another break came meanwhile: its round reports it
    if (!missed || ownRound !== round || redis.status !== 'ready') return;
    missed = false;
    for (const listener of breaks) guarded(listener, onTrouble);
  }

  function leave(channel: string, subscription: Subscription, entry: { call: Listener }): void {
    if (
      !subscription.listeners.delete(entry) ||
      subscription.listeners.size > 0 ||
      subscriptions.get(channel) !== subscription
    )
      return;
    subscriptions.delete(channel);
    if (redis.status === 'ready') connection.run((to) => to.unsubscribe(channel)).catch(() => {});
  }

  return {
    async subscribe(channel, listener) {
      const subscription = subscriptions.get(channel) ?? { listeners: new Set(), subscribed: Promise.resolve() };
      const entry = { call: listener };
      subscription.listeners.add(entry);
      if (subscriptions.get(channel) !== subscription) {
        subscriptions.set(channel, subscription);
        subscription.subscribed = subscribe(channel);
      }
      try {
        await subscription.subscribed;
      } catch (error) {
        leave(channel, subscription, entry);
        throw error;
      }
      return async () => leave(channel, subscription, entry);
    },
    onBreak(listener) {
      const own = () => listener();
      breaks.add(own);
      return () => void breaks.delete(own);
    },
    async close() {
      clearInterval(asking);
      subscriptions.clear();
      await connection.close();
    },
  };
}

/** Calls a listener. One that throws must neither end the process nor stop the others. */
function guarded(call: () => void, onTrouble: (error: unknown) => void): void {
  try {
    call();
  } catch (error) {
    onTrouble(error);
  }
}
