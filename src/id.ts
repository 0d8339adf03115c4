// Global ids: TypeIDs, which are the prefix of a type and a UUIDv7 in Crockford base32, e.g.
// `job_01kb8xw3rte9p8c3q0v5m2a7df`. They sort by time of creation, and the prefix tells
// `Query.node` where to look.
import { randomBytes } from 'node:crypto';

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz';

/** Makes an id: the prefix, an underscore and 26 characters. */
export function newId(prefix: string): string {
  let bits = uuidV7();
  let text = '';
  for (let i = 0; i < 26; i++, bits >>= 5n) text = alphabet[Number(bits & 31n)] + text;
  return `${prefix}_${text}`;
}

/** Returns the prefix of a TypeID; undefined for other texts, e.g. a project key. */
export function idPrefix(id: string): string | undefined {
  return /^([a-z]+)_[0-9a-hjkmnp-tv-z]{26}$/.exec(id)?.[1];
}

/**
 * Returns a UUIDv7 (RFC 9562) as a number: 48 bits of milliseconds since the Unix epoch, the version
 * 7, the variant 2, and 74 random bits. `crypto.randomUUIDv7` is not in Node 22.
 */
function uuidV7(): bigint {
  const random = BigInt(`0x${randomBytes(10).toString('hex')}`) & 0xfff_3fff_ffff_ffff_ffffn;
  return (BigInt(Date.now()) << 80n) | (7n << 76n) | (2n << 62n) | random;
}
