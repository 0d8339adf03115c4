// Texts and lists of bounded length, for the schemas that meet what people send. zod measures whatever has a `length`, an
// object with a property of that name too, and would convert the value that stands there.
import { z } from 'zod';

const when = ({ value }: { value: unknown }) => typeof value === 'string' || Array.isArray(value);
const atLeast = (minimum: number) => new z.core.$ZodCheckMinLength({ check: 'min_length', minimum, when });
const atMost = (maximum: number) => new z.core.$ZodCheckMaxLength({ check: 'max_length', maximum, when });

/** A text of so many characters. */
export function textOf(min: number, max: number) {
  return min > 0 ? z.string().check(atLeast(min), atMost(max)) : z.string().check(atMost(max));
}

/** A list of so many items at most. */
export function listOf<Item extends z.ZodType>(item: Item, max: number) {
  return z.array(item).check(atMost(max));
}
