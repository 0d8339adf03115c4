// Keys for ASTRAML_SECRET_KEYS in tests.
import { randomBytes } from 'node:crypto';

/** Returns a new key for each id, comma-separated. */
export function newSecretKeys(...ids: string[]): string {
  return ids.map((id) => `${id}:${randomBytes(32).toString('base64')}`).join(',');
}
