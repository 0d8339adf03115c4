// Keys of secrets for tests, as ASTRAML_SECRET_KEYS takes them.
import { randomBytes } from 'node:crypto';

/** A new key for each id, comma-separated. */
export function newSecretKeys(...ids: string[]): string {
  return ids.map((id) => `${id}:${randomBytes(32).toString('base64')}`).join(',');
}
