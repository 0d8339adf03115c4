// How late lines are: when they reach the feed, and when they leave for the first subscriber. Of what comes live only;
// history is old on purpose.
import { liveFigures } from '../metrics-registry.ts';

/** What came live and was delivered to nobody yet, with the time at which its newest row was made. */
const undelivered = new WeakMap<object, number>();

/** `madeAt` in milliseconds since the Unix epoch. */
export function markFed(value: unknown, madeAt: number): void {
  liveFigures.lag.observe(secondsSince(madeAt));
  if (typeof value === 'object' && value !== null) undelivered.set(value, madeAt);
}

/** Once for each value: whoever joins later and takes it from the ring does not make it late. */
export function markDelivered(value: object): void {
  const madeAt = undelivered.get(value);
  if (madeAt === undefined) return;
  undelivered.delete(value);
  liveFigures.deliveryLag.observe(secondsSince(madeAt));
}

function secondsSince(time: number): number {
  return Math.max(0, Date.now() - time) / 1000;
}
