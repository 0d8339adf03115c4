// Cursors: positions in a stream as opaque texts with a version and the name of the stream. A page
// of history and the subscription of the same data share them. A cursor holds a position and no
// permission: the viewer is checked at each read.
import { Refusal } from '../errors.ts';

const version = 1;

/** Encodes a position in a stream, e.g. `[17]` in the stream `log:job_…`, as a cursor. */
export function encodeCursor(stream: string, position: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify([version, stream, ...position])).toString('base64url');
}

/**
 * Returns the position that a cursor holds; its parts are unchecked JSON, so the caller checks
 * their types. Throws CURSOR_INVALID for text that `encodeCursor` did not make, CURSOR_WRONG_STREAM
 * for a cursor of another stream.
 */
export function decodeCursor(stream: string, cursor: string): unknown[] {
  const [cursorVersion, owner, ...position] = parseCursor(cursor);
  const odd = position.some((part) => typeof part === 'string' && part.includes('\0'));
  if (cursorVersion !== version || typeof owner !== 'string' || odd) throw cursorInvalid();
  if (owner !== stream) {
    throw new Refusal('CURSOR_WRONG_STREAM', 'The cursor belongs to another stream.', {
      hint: 'Pass a cursor of the same job, connection and order.',
    });
  }
  return position;
}

/**
 * Like `decodeCursor`, for a position that is one whole number from 0 on, e.g. the number of a log
 * line.
 */
export function decodeNumber(stream: string, cursor: string): number {
  const [position, ...rest] = decodeCursor(stream, cursor);
  if (rest.length > 0 || !isCount(position)) throw cursorInvalid();
  return position;
}

/** Like `decodeCursor`, for a position that is one text, e.g. an id. */
export function decodeText(stream: string, cursor: string): string {
  const [position, ...rest] = decodeCursor(stream, cursor);
  if (rest.length > 0 || typeof position !== 'string') throw cursorInvalid();
  return position;
}

/** Whether a part of a position is a whole number from 0 on. JSON may hold any value there. */
export function isCount(part: unknown): part is number {
  return typeof part === 'number' && Number.isSafeInteger(part) && part >= 0;
}

export function cursorInvalid(): Refusal {
  return new Refusal('CURSOR_INVALID', 'The cursor is not one that this gateway gave.', {
    hint: 'Pass an endCursor or startCursor as it came, or none to start anew.',
  });
}

function parseCursor(cursor: string): unknown[] {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'));
    return Array.isArray(parsed) ? parsed : [];
  } catch {
    return [];
  }
}
