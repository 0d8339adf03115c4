// Joins calls that come in one turn of the event loop into one: the more requests come at once, the
// less each costs, and a single call is not delayed.
import DataLoader from 'dataloader';

/**
 * Makes a function of one item that passes all items of a turn to `work` together, at most `most`
 * at once. `work` returns a value or an error for each, in order.
 */
export function batchPerTurn<Item, Value>(
  most: number,
  work: (items: readonly Item[]) => Promise<(Value | Error)[]>,
): (item: Item) => Promise<Value> {
  const batchScheduleFn = (dispatch: () => void) => void setImmediate(dispatch);
  const loader = new DataLoader<Item, Value>(work, { cache: false, maxBatchSize: most, batchScheduleFn });
  return (item) => loader.load(item);
}

/**
 * Makes a function that reads once for all equal calls of one turn. The read begins after the last
 * of these calls, so that no caller gets an older state.
 */
export function readOncePerTurn<Source extends object, Value>(
  read: (source: Source, key: string) => Promise<Value>,
): (source: Source, key: string) => Promise<Value> {
  const reads = new WeakMap<Source, Map<string, Promise<Value>>>();
  return (source, key) => {
    const readsOfSource = reads.get(source) ?? new Map<string, Promise<Value>>();
    reads.set(source, readsOfSource);
    const pending = readsOfSource.get(key);
    if (pending) return pending;
    const answer = new Promise((resolve) => setImmediate(resolve)).then(() => {
      readsOfSource.delete(key);
      return read(source, key);
    });
    readsOfSource.set(key, answer);
    return answer;
  };
}
