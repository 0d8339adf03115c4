// Damages requests by a seed: flipped bits, text that ends early, values of another type, huge
// strings.
import type { Random } from './operations.ts';

/** Values that are valid JSON but that code rarely expects. */
export const hostileValues: readonly unknown[] = [
  ...[null, true, 0, -1, 2 ** 31, 2 ** 53, -1e308, 5e-324, '', ' ', 'x', '\0', '\ud800', '‮', 'é'.repeat(300)],
  ...['__proto__', 'constructor', "'; drop table job; --", '${x}', '../../etc/passwd', 'eyJ-'.repeat(500)],
  ...[[], {}, [[]], [{}], [null], { toString: '' }, { toString: null, valueOf: 1 }, [{ toString: '' }, []]],
  ...[JSON.parse('{"__proto__": {"x": 1}}') as unknown, { constructor: { prototype: 1 } }, { length: -1 }],
  nested(40),
];

function nested(depth: number): unknown {
  return depth === 0 ? 1 : depth % 2 ? [nested(depth - 1)] : { a: nested(depth - 1) };
}

/** Returns a copy of the JSON with one to three members replaced, removed or added. */
export function damageJson(random: Random, json: unknown): unknown {
  let copy = structuredClone(json);
  for (let remaining = 1 + random.int(3); remaining > 0; remaining--) copy = damageOne(random, copy);
  return copy;
}

function damageOne(random: Random, json: unknown): unknown {
  if (typeof json !== 'object' || json === null || random.chance(0.1)) return hostile(random);
  const keys = Object.keys(json);
  const key = keys.length === 0 || random.chance(0.1) ? random.pick(['__proto__', 'x', '0', 'id']) : random.pick(keys);
  const value = Object.hasOwn(json, key) ? damageOne(random, Reflect.get(json, key)) : hostile(random);
  // Defines `__proto__` as a member, as JSON.parse does.
  if (!random.chance(0.15))
    Object.defineProperty(json, key, { value, enumerable: true, configurable: true, writable: true });
  else Reflect.deleteProperty(json, key);
  return json;
}

function hostile(random: Random): unknown {
  return random.chance(0.03)
    ? 'y'.repeat(random.pick([100_000, 1_100_000]))
    : // a copy, since a value inside of itself would be a cycle
      structuredClone(random.pick(hostileValues));
}

/** Returns the text with flipped bits, a piece removed or doubled, or its end cut off. */
export function damageText(random: Random, text: string): Buffer {
  const bytes = Buffer.from(text);
  const at = random.int(bytes.length);
  switch (random.int(5)) {
    case 0:
      return bytes.subarray(0, at);
    case 1:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random.int(8))]);
    case 2:
      return Buffer.concat([bytes.subarray(0, at + random.int(40)), bytes.subarray(at)]);
    case 3:
      return bytes;
    default:
      for (let remaining = 1 + random.int(4); remaining > 0; remaining--) {
        const index = random.int(bytes.length);
        bytes[index] = (bytes[index] ?? 0) ^ (1 << random.int(8));
      }
      return bytes;
  }
}
