// Messages over Redis: one connection that subscribes, however many listen to a channel. Redis forgets what it has
// published: after each break everybody is told to look again, once all channels are heard anew.
import type { Bus } from './bus.ts';
import { connect, isRefused } from './redis-connection.ts';

export type Messages = Pick<Bus, 'subscribe' | 'onBreak' | 'close'>;

type Listener = (message: string) => void;
type Topic = { readonly listeners: Set<{ hear: Listener }>; heard: Promise<void> };

/** A connection that hears nothing is asked so often whether it is still there. */
const askMs = 5_000;

/** `onAway` gets failures of the connection, `onTrouble` those of listeners and what Redis refuses. */
export function openMessages(
  url: string,
  onAway: (error: Error) => void,
  onTrouble: (error: unknown) => void,
): Messages {
  const topics = new Map<string, Topic>();
  const breaks = new Set<() => void>();
  const connection = connect(url, onAway);
  const { redis } = connection;
  let missed = false;
  let round = 0;
  redis.on('close', () => (missed = true));
  redis.on('ready', () => void hearAll());
  redis.on('message', (channel: string, message: string) => {
    for (const { hear } of [...(topics.get(channel)?.listeners ?? [])]) guarded(() => hear(message), onTrouble);
  });
  const asking = setInterval(() => {
    connection.run((to) => to.ping()).catch(() => {}); // a dead connection is made anew by itself
  }, askMs).unref();

  /** Rejects only when Redis refuses: while it is away the channel is heard later, and a break says so. */
  async function hear(channel: string): Promise<void> {
    try {
      await connection.run((to) => to.subscribe(channel));
    } catch (error) {
      if (isRefused(error)) throw error;
      missed = true;
      if (redis.status === 'ready') redis.disconnect(true);
    }
  }

  async function hearAll(): Promise<void> {
    const mine = ++round;
    const results = await Promise.allSettled([...topics.keys()].map(hear));
    for (const result of results) if (result.status === 'rejected') onTrouble(result.reason);
    if (!missed || mine !== round || redis.status !== 'ready') return; // another break came meanwhile
    missed = false;
    for (const listener of breaks) guarded(listener, onTrouble);
  }

  function leave(channel: string, topic: Topic, entry: { hear: Listener }): void {
    if (!topic.listeners.delete(entry) || topic.listeners.size > 0 || topics.get(channel) !== topic) return;
    topics.delete(channel);
    if (redis.status === 'ready') connection.run((to) => to.unsubscribe(channel)).catch(() => {});
  }

  return {
    async subscribe(channel, listener) {
      const topic = topics.get(channel) ?? { listeners: new Set(), heard: Promise.resolve() };
      const entry = { hear: listener };
      topic.listeners.add(entry);
      if (topics.get(channel) !== topic) {
        topics.set(channel, topic);
        topic.heard = hear(channel);
      }
      try {
        await topic.heard;
      } catch (error) {
        leave(channel, topic, entry);
        throw error;
      }
      return async () => leave(channel, topic, entry);
    },
    onBreak(listener) {
      const own = () => listener();
      breaks.add(own);
      return () => void breaks.delete(own);
    },
    async close() {
      clearInterval(asking);
      topics.clear();
      await connection.close();
    },
  };
}

/** A listener that throws must not end the process, nor keep others from hearing. */
function guarded(call: () => void, onTrouble: (error: unknown) => void): void {
  try {
    call();
  } catch (error) {
    onTrouble(error);
  }
}
