// The key that encrypts secrets when none is configured: made once, in the data folder, readable
// only by its owner.
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { type SecretKey, variables } from '../../variables.ts';
import { usage } from '../failure.ts';

/**
 * Returns the keys in the file, and makes a file with one key when it is missing. Throws when the
 * file holds anything else.
 */
export function keepSecretKeys(file: string): SecretKey[] {
  const keys = variables.ASTRAML_SECRET_KEYS.schema.safeParse(readOrMake(file)).data ?? [];
  if (keys.length > 0) return keys;
  throw usage(
    `${file} does not hold the keys of the secrets.`,
    'Bring the file back; without it, delete it and set every secret again.',
  );
}

function readOrMake(file: string): string {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  // The id is random, so that a new key after the loss of the file is not taken for the lost one.
  const made = `local-${randomBytes(4).toString('hex')}:${randomBytes(32).toString('base64')}`;
  try {
    writeFileSync(file, `${made}\n`, { mode: 0o600, flag: 'wx' });
    return made;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return readFileSync(file, 'utf8').trim();
    throw error;
  }
}
