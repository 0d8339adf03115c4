// What is asked for in one turn of the event loop is done together: the more requests come at once, the less each costs,
// and one that comes alone waits for nobody.
import DataLoader from 'dataloader';

/** A function of one item that hands `work` those of a turn, `most` at once; it gives a value or an error for each. */
export function batchPerTurn<Item, Value>(
  most: number,
  work: (items: readonly Item[]) => Promise<(Value | Error)[]>,
): (item: Item) => Promise<Value> {
  const batchScheduleFn = (dispatch: () => void) => void setImmediate(dispatch);
  const loader = new DataLoader<Item, Value>(work, { cache: false, maxBatchSize: most, batchScheduleFn });
  return (item) => loader.load(item);
}

/**
 * Reads once for all who ask for the same in one turn. The read begins after the last of them asked: nobody gets what
 * was so before.
 */
export function readOncePerTurn<Source extends object, Value>(
  read: (source: Source, key: string) => Promise<Value>,
): (source: Source, key: string) => Promise<Value> {
  const asked = new WeakMap<Source, Map<string, Promise<Value>>>();
  return (source, key) => {
    const ofSource = asked.get(source) ?? new Map<string, Promise<Value>>();
    asked.set(source, ofSource);
    const known = ofSource.get(key);
    if (known) return known;
    const answer = new Promise((resolve) => setImmediate(resolve)).then(() => {
      ofSource.delete(key);
      return read(source, key);
    });
    ofSource.set(key, answer);
    return answer;
  };
}
