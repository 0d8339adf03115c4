// Zod types for texts and lists of bounded length in requests. zod's own `min` and `max` measure
// anything with a `length`, e.g. an object with a property of that name, and convert its value.
// These measure strings and arrays only.
import { z } from 'zod';

const when = ({ value }: { value: unknown }) => typeof value === 'string' || Array.isArray(value);
const atLeast = (minimum: number) => new z.core.$ZodCheckMinLength({ check: 'min_length', minimum, when });
const atMost = (maximum: number) => new z.core.$ZodCheckMaxLength({ check: 'max_length', maximum, when });

/** Makes the type of a text with `min` to `max` characters. */
export function textOf(min: number, max: number) {
  return min > 0 ? z.string().check(atLeast(min), atMost(max)) : z.string().check(atMost(max));
}

/** Makes the type of a list with up to `max` items. */
export function listOf<Item extends z.ZodType>(item: Item, max: number) {
  return z.array(item).check(atMost(max));
}
