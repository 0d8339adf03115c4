// Mergeable aggregates, pure: the content of one window of one metric. Merging two aggregates gives
// the same as adding all points to one: exactly for count, sum, min, max, first and last, within 1
// % for quantiles (a sparse DDSketch).

/** Relative accuracy of a quantile is (γ − 1) / (γ + 1), a little under 1 %. */
const gamma = 1.02;
const logGamma = Math.log(gamma);

/** Bucket index → count. Bucket i holds values in (γ^(i−1), γ^i]. */
type Buckets = Record<string, number>;

/** A value as stored JSON: NaN and ±Infinity are strings. */
export type StoredValue = number | string;

export type Aggregate = {
  count: number;
  /** Sum of the finite values. */
  sum: StoredValue;
  min: number | null;
  max: number | null;
  first: StoredValue;
  last: StoredValue;
  firstStep: number | null;
  lastStep: number | null;
  nonFinite: number;
  zeros: number;
  positive: Buckets;
  negative: Buckets;
};

export function toStored(value: number): StoredValue {
  return Number.isFinite(value) ? value : String(value);
}

export function fromStored(value: StoredValue): number {
  return Number(value);
}

/** Makes an aggregate of one value. */
export function aggregateOf(value: number, step: number | null): Aggregate {
  const finite = Number.isFinite(value);
  const bucket = (matches: boolean): Buckets => (finite && matches ? { [bucketOf(Math.abs(value))]: 1 } : {});
  return {
    count: 1,
    sum: finite ? value : 0,
    min: finite ? value : null,
    max: finite ? value : null,
    first: toStored(value),
    last: toStored(value),
    firstStep: step,
    lastStep: step,
    nonFinite: finite ? 0 : 1,
    zeros: value === 0 ? 1 : 0,
    positive: bucket(value > 0),
    negative: bucket(value < 0),
  };
}

/**
 * Merges two aggregates, as if the points of `later` had come after those of `earlier`. Changes
 * neither.
 */
export function mergeAggregates(earlier: Aggregate, later: Aggregate): Aggregate {
  return {
    count: earlier.count + later.count,
    sum: toStored(fromStored(earlier.sum) + fromStored(later.sum)),
    min: smaller(earlier.min, later.min),
    max: larger(earlier.max, later.max),
    first: earlier.first,
    last: later.last,
    firstStep: smaller(earlier.firstStep, later.firstStep),
    lastStep: larger(earlier.lastStep, later.lastStep),
    nonFinite: earlier.nonFinite + later.nonFinite,
    zeros: earlier.zeros + later.zeros,
    positive: mergeBuckets(earlier.positive, later.positive),
    negative: mergeBuckets(earlier.negative, later.negative),
  };
}

/**
 * Adds a later value to an aggregate in place; the caller must be its only owner. Merging instead
 * copies all buckets: for a thousand different values, half a million copies.
 */
export function addValue(aggregate: Aggregate, value: number, step: number | null): void {
  aggregate.count++;
  aggregate.last = toStored(value);
  aggregate.firstStep = smaller(aggregate.firstStep, step);
  aggregate.lastStep = larger(aggregate.lastStep, step);
  if (!Number.isFinite(value)) {
    aggregate.nonFinite++;
    return;
  }
  aggregate.sum = toStored(fromStored(aggregate.sum) + value);
  aggregate.min = smaller(aggregate.min, value);
  aggregate.max = larger(aggregate.max, value);
  if (value === 0) aggregate.zeros++;
  else addToBucket(value > 0 ? aggregate.positive : aggregate.negative, Math.abs(value));
}

function addToBucket(buckets: Buckets, magnitude: number): void {
  const index = bucketOf(magnitude);
  buckets[index] = (buckets[index] ?? 0) + 1;
}

/** Mean of the finite values; null when there are none, or when their sum overflows a double. */
export function meanOf(aggregate: Aggregate): number | null {
  const finite = aggregate.count - aggregate.nonFinite;
  const sum = fromStored(aggregate.sum);
  return finite > 0 && Number.isFinite(sum) ? sum / finite : null;
}

/**
 * Quantile (0…1) of the finite values by nearest rank, within 1 % relative error; null when there
 * are none.
 */
export function quantileOf(aggregate: Aggregate, quantile: number): number | null {
  const finite = aggregate.count - aggregate.nonFinite;
  if (finite <= 0 || aggregate.min === null || aggregate.max === null) return null;
  const rank = Math.max(0, Math.ceil(quantile * finite) - 1);
  const within = (value: number) => Math.min(aggregate.max ?? value, Math.max(aggregate.min ?? value, value));
  let seen = 0;
  // Values are counted upwards: among negatives, the largest magnitude comes first.
  for (const [index, count] of sorted(aggregate.negative).reverse()) {
    seen += count;
    if (seen > rank) return within(-valueOf(index));
  }
  seen += aggregate.zeros;
  if (seen > rank) return within(0);
  for (const [index, count] of sorted(aggregate.positive)) {
    seen += count;
    if (seen > rank) return within(valueOf(index));
  }
  return aggregate.max;
}

function bucketOf(magnitude: number): number {
  return Math.ceil(Math.log(magnitude) / logGamma);
}

/** Returns the value of a bucket with the smallest relative distance to all values in it. */
function valueOf(index: number): number {
  return (2 * Math.exp(index * logGamma)) / (gamma + 1);
}

function sorted(buckets: Buckets): [number, number][] {
  return Object.entries(buckets)
    .map(([index, count]): [number, number] => [Number(index), count])
    .sort((a, b) => a[0] - b[0]);
}

function mergeBuckets(a: Buckets, b: Buckets): Buckets {
  const merged = { ...a };
  for (const [index, count] of Object.entries(b)) merged[index] = (merged[index] ?? 0) + count;
  return merged;
}

function smaller(a: number | null, b: number | null): number | null {
  return a === null ? b : b === null ? a : Math.min(a, b);
}

function larger(a: number | null, b: number | null): number | null {
  return a === null ? b : b === null ? a : Math.max(a, b);
}
