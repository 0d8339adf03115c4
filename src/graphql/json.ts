// Writes large results as JSON, piece by piece in turns with other work, and counts the bytes as
// they grow, so that one operation holds up neither the event loop nor the memory.
import { giveWay } from '../turns.ts';

/** Length of a piece in characters: after each, bytes are counted and other work may run. */
const pieceLength = 32 * 1024;
/** Longer lists and objects are written member by member. */
const maxMembers = 64;

/**
 * A text as pieces: joining 13 MB of them, or encoding them at once, would hold up the event loop.
 */
export type Pieces = { pieces: readonly string[]; bytes: number };

/**
 * Writes a value as JSON. `count` gets the bytes of each piece before the next one is made; an
 * error that it throws ends the work.
 */
export async function toJsonInTurns(value: unknown, count: (bytes: number) => Promise<void>): Promise<Pieces> {
  const writer = { text: '' };
  const pieces: string[] = [];
  let bytes = 0;
  const takePiece = async () => {
    const pieceBytes = Buffer.byteLength(writer.text);
    await count(pieceBytes);
    pieces.push(writer.text);
    bytes += pieceBytes;
    writer.text = '';
  };
  for (const _full of write(writer, value)) {
    await takePiece();
    const turn = giveWay();
    if (turn) await turn;
  }
  if (writer.text !== '') await takePiece();
  return { pieces, bytes };
}

/**
 * Appends the JSON of a value to `writer`. It yields whenever a piece is full, for the caller to
 * take it.
 */
function* write(writer: { text: string }, value: unknown): Generator<undefined, void, undefined> {
  if (!isNested(value)) writer.text += JSON.stringify(value) ?? 'null';
  else if (Array.isArray(value)) {
    let before = '[';
    for (const item of value) {
      writer.text += before;
      before = ',';
      yield* write(writer, item);
    }
    writer.text += value.length > 0 ? ']' : '[]';
  } else {
    let before = '{';
    for (const [key, member] of Object.entries(value)) {
      if (member === undefined) continue;
      writer.text += `${before}${JSON.stringify(key)}:`;
      before = ',';
      yield* write(writer, member);
    }
    writer.text += before === '{' ? '{}' : '}';
  }
  if (writer.text.length >= pieceLength) yield;
}

/** Whether a value is better written member by member: it holds other objects, or many members. */
function isNested(value: unknown): value is object {
  if (typeof value !== 'object' || value === null || 'toJSON' in value) return false;
  const members = Array.isArray(value) ? (value as unknown[]) : Object.values(value);
  return members.length > maxMembers || members.some((member) => typeof member === 'object' && member !== null);
}
