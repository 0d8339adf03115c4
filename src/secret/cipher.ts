// Envelope encryption of secrets. Each version of a secret has a random 256-bit data key, which
// encrypts the value and is itself encrypted ("wrapped") with a key of the gateway. Both use
// AES-256-GCM with a fresh nonce. The ciphertext is bound to its project, name and version: moved
// to another one, it cannot be decrypted.
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from 'node:crypto';
import type { SecretKey } from '../config.ts';

/** The project, name and version to which a value belongs. */
export type Place = { projectId: string; name: string; version: number };

/** An encrypted value. Both buffers are nonce (12 bytes), ciphertext, tag (16 bytes). */
export type Sealed = { keyId: string; wrappedKey: Buffer; sealedValue: Buffer };

const algorithm = 'aes-256-gcm';
const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

/**
 * Why a value cannot be decrypted: the gateway lacks the key, or the stored bytes are not those
 * that were sealed.
 */
export type Unopened = 'KEY_MISSING' | 'DAMAGED';

/** Encrypts a value under a new data key. */
export function seal(key: SecretKey, place: Place, value: string): Sealed {
  const dataKey = randomBytes(keyBytes);
  try {
    return {
      keyId: key.id,
      wrappedKey: encrypt(key.key, boundTo('key', place, key.id), dataKey),
      sealedValue: encrypt(dataKey, boundTo('value', place, key.id), Buffer.from(value, 'utf8')),
    };
  } finally {
    dataKey.fill(0);
  }
}

/** Decrypts the result of `seal` for the same place, with the key of the same id. */
export function open(
  keys: readonly SecretKey[],
  place: Place,
  { keyId, wrappedKey, sealedValue }: Sealed,
): { value: string } | { problem: Unopened } {
  const key = keys.find(({ id }) => id === keyId);
  if (!key) return { problem: 'KEY_MISSING' };
  const dataKey = decrypt(key.key, boundTo('key', place, keyId), wrappedKey);
  if (dataKey?.length !== keyBytes) return { problem: 'DAMAGED' };
  const value = decrypt(dataKey, boundTo('value', place, keyId), sealedValue);
  dataKey.fill(0);
  return value ? { value: value.toString('utf8') } : { problem: 'DAMAGED' };
}

/**
 * Additional authenticated data: JSON, so that no two places give the same text. `what` keeps a
 * wrapped key from passing for a value.
 */
function boundTo(what: 'key' | 'value', { projectId, name, version }: Place, keyId: string): Buffer {
  return Buffer.from(JSON.stringify(['astraml secret', what, projectId, name, version, keyId]));
}

function encrypt(key: KeyObject | Buffer, bound: Buffer, plain: Buffer): Buffer {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv(algorithm, key, nonce, { authTagLength: tagBytes }).setAAD(bound);
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** Decrypts a ciphertext; null unless it was encrypted with this key and bound to these bytes. */
function decrypt(key: KeyObject | Buffer, bound: Buffer, sealed: Buffer): Buffer | null {
  if (sealed.length < nonceBytes + tagBytes) return null;
  const tagAt = sealed.length - tagBytes;
  const decipher = createDecipheriv(algorithm, key, sealed.subarray(0, nonceBytes), { authTagLength: tagBytes });
  decipher.setAAD(bound).setAuthTag(sealed.subarray(tagAt));
  try {
    return Buffer.concat([decipher.update(sealed.subarray(nonceBytes, tagAt)), decipher.final()]);
  } catch {
    return null; // the tag does not match
  }
}
