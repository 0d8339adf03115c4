// Global ids: TypeIDs, a type's prefix and a UUIDv7 in Crockford base32, e.g. `job_01kb8xw3rte9p8c3q0v5m2a7df`.
// They sort by time of creation, say what they name, and `Query.node` needs nothing but the id.
import { randomUUIDv7 } from 'node:crypto';

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz';

/** A new id; 26 characters follow the prefix and its underscore. */
export function newId(prefix: string): string {
  let bits = BigInt(`0x${randomUUIDv7().replaceAll('-', '')}`);
  let text = '';
  for (let i = 0; i < 26; i++, bits >>= 5n) text = alphabet[Number(bits & 31n)] + text;
  return `${prefix}_${text}`;
}

/** Prefix of a TypeID; undefined for anything else, e.g. a project key. */
export function idPrefix(id: string): string | undefined {
  return /^([a-z]+)_[0-9a-hjkmnp-tv-z]{26}$/.exec(id)?.[1];
}
