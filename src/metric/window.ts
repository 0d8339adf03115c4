// Mergeable aggregates, pure: what one window of one metric holds. Merging two gives the same as adding all points to
// one: exactly for count, sum, min, max, first and last, within 1 % for quantiles (a sparse DDSketch).

/** Relative accuracy of a quantile is (γ − 1) / (γ + 1), a little under 1 %. */
const gamma = 1.02;
const logGamma = Math.log(gamma);

/** Bucket index → count. Bucket i holds values in (γ^(i−1), γ^i]. */
type Buckets = Record<string, number>;

/** A value as JSON holds it: NaN and ±Infinity are strings. */
export type StoredValue = number | string;

export type Aggregate = {
  count: number;
  /** Of the finite values. */
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

/** An aggregate of one value. */
export function aggregateOf(value: number, step: number | null): Aggregate {
  const finite = Number.isFinite(value);
  const bucket = (wanted: boolean): Buckets => (finite && wanted ? { [bucketOf(Math.abs(value))]: 1 } : {});
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

/** `later` merged into `earlier`, as if its points had come after. Neither is changed. */
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
 * Adds a later value to an aggregate that is the caller's alone. Merging copies all buckets, so that a thousand different
 * values, each merged, would copy half a million.
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

/** Mean of the finite values; null when there is none, or when their sum is beyond what a number can hold. */
export function meanOf(aggregate: Aggregate): number | null {
  const finite = aggregate.count - aggregate.nonFinite;
  const sum = fromStored(aggregate.sum);
  return finite > 0 && Number.isFinite(sum) ? sum / finite : null;
}

/** Quantile of the finite values, 0…1, by nearest rank, within 1 % relative error; null when there is none. */
export function quantileOf(aggregate: Aggregate, quantile: number): number | null {
  const finite = aggregate.count - aggregate.nonFinite;
  if (finite <= 0 || aggregate.min === null || aggregate.max === null) return null;
  const rank = Math.max(0, Math.ceil(quantile * finite) - 1);
  const within = (value: number) => Math.min(aggregate.max ?? value, Math.max(aggregate.min ?? value, value));
  let seen = 0;
  // From the most negative value up: the largest bucket of the negatives comes first.
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

/** The value whose relative distance to all of the bucket is smallest. */
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
