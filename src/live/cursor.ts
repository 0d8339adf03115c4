// Cursors: opaque, versioned, bound to their stream. The Relay connection and the subscription of the same data share
// them. A cursor says where, never who: whoever reads with one is asked for permission again.
import { Refusal } from '../errors.ts';

const version = 1;

/** A cursor of the stream, e.g. `log:job_…`, at a position. */
export function encodeCursor(stream: string, position: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify([version, stream, ...position])).toString('base64url');
}

/**
 * Position of a cursor. Throws CURSOR_INVALID for text that is no cursor of ours, CURSOR_WRONG_STREAM for a cursor of
 * another stream. The caller checks the types of what it gets.
 */
export function decodeCursor(stream: string, cursor: string): unknown[] {
  const [found, owner, ...position] = parseCursor(cursor);
  const odd = position.some((part) => typeof part === 'string' && part.includes('\0'));
  if (found !== version || typeof owner !== 'string' || odd) throw cursorInvalid();
  if (owner !== stream) {
    throw new Refusal('CURSOR_WRONG_STREAM', 'The cursor belongs to another stream.', {
      hint: 'Pass a cursor of the same job, connection and order.',
    });
  }
  return position;
}

/** Position of a cursor that is one whole number, e.g. a line's. */
export function decodeNumber(stream: string, cursor: string): number {
  const [position, ...rest] = decodeCursor(stream, cursor);
  if (rest.length > 0 || !isCount(position)) throw cursorInvalid();
  return position;
}

/** Position of a cursor that is one text, e.g. an id. */
export function decodeText(stream: string, cursor: string): string {
  const [position, ...rest] = decodeCursor(stream, cursor);
  if (rest.length > 0 || typeof position !== 'string') throw cursorInvalid();
  return position;
}

/** Whether a part of a cursor is a whole number from 0 on. */
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
