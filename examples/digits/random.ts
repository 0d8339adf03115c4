// Pseudo-random numbers from a seed. Each use (weights, order, augmentation) has a stream of its own, so that drawing
// more in one changes nothing in another.

export type Random = {
  /** 0 ≤ x < 1 */
  uniform(): number;
  /** a whole number from `low` to `high`, both included */
  whole(low: number, high: number): number;
  /** from the standard normal distribution */
  normal(): number;
};

export function createRandom(seed: number, stream: string): Random {
  let state = hash(`${seed}/${stream}`);
  // mulberry32 (Tommy Ettinger, public domain)
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    uniform,
    whole: (low, high) => low + Math.floor(uniform() * (high - low + 1)),
    // Box–Muller; 1 − u keeps the logarithm finite
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
  };
}

/** 0 … count − 1 in a random order (Fisher–Yates). */
export function shuffledIndices(count: number, random: Random): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, index) => index);
  for (let last = count - 1; last > 0; last--) {
    const other = random.whole(0, last);
    const kept = order[last]!;
    order[last] = order[other]!;
    order[other] = kept;
  }
  return order;
}

// FNV-1a, 32 bits
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193);
  return value;
}
