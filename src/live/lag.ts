// Metrics of lateness: seconds from the time a row was made until it reaches the feed, and until it
// leaves for the first subscriber. Rows from history are not measured, since they are old on
// purpose.
import { liveFigures } from '../metrics-registry.ts';

/** Values that reached the feed but no subscriber yet, with the time of their newest row. */
const undelivered = new WeakMap<object, number>();

/**
 * Observes that `value` reached the feed. `madeAt` is the time of its newest row, in milliseconds
 * since the Unix epoch.
 */
export function markFed(value: unknown, madeAt: number): void {
  liveFigures.lag.observe(secondsSince(madeAt));
  if (typeof value === 'object' && value !== null) undelivered.set(value, madeAt);
}

/**
 * Observes that `value` left for a subscriber. Only the first delivery counts: a subscriber that
 * joins later and takes the value from the ring does not make it late.
 */
export function markDelivered(value: object): void {
  const madeAt = undelivered.get(value);
  if (madeAt === undefined) return;
  undelivered.delete(value);
  liveFigures.deliveryLag.observe(secondsSince(madeAt));
}

function secondsSince(time: number): number {
  return Math.max(0, Date.now() - time) / 1000;
}
