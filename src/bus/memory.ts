// The bus inside of one process, for `dev`, `demo` and tests. It keeps the whole contract: messages
// arrive after the call that sent them, and uplink entries stay until they are done.
import { EventEmitter } from 'node:events';
import { type Bus, defaultIdleMs } from './bus.ts';
import { MemoryUplink } from './memory-uplink.ts';

export function memoryBus({ idleMs = defaultIdleMs }: { idleMs?: number } = {}): Bus {
  const messages = new EventEmitter({ captureRejections: false }).setMaxListeners(0);
  const uplink = new MemoryUplink(idleMs);
  let closed = false;
  const requireOpen = () => {
    if (closed) throw new Error('The bus is closed.');
  };
  return {
    async publish(channel, message) {
      requireOpen();
      // A listener is called later, as over a network: not in the stack of the sender.
      setImmediate(() => messages.emit(`channel:${channel}`, message.toString()));
    },
    async subscribe(channel, listener) {
      requireOpen();
      messages.on(`channel:${channel}`, listener);
      return async () => void messages.off(`channel:${channel}`, listener);
    },
    onBreak: () => () => {}, // there is no connection that could break
    async append(stream, batch) {
      requireOpen();
      uplink.append(stream, batch);
    },
    async take(consumer, options) {
      requireOpen();
      return uplink.take(consumer, options);
    },
    done: async (entries) => uplink.done(entries),
    oldest: async () => uplink.oldest(),
    async probe() {
      requireOpen();
    },
    async ping() {
      requireOpen();
    },
    async close() {
      closed = true;
      messages.removeAllListeners();
      uplink.close();
    },
  };
}
