// Reads small files, of the system or of this program, that may be missing.
import { readFileSync } from 'node:fs';

/** Returns the file's text; empty when it is missing or cannot be read. */
export function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
