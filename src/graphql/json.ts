// JSON of large results: written piece by piece in turns with others, and counted as it grows, so that neither the event
// loop nor the memory is held by what one operation asked for.
import { giveWay } from '../turns.ts';

/** Characters that are counted, and after which others may have their turn. */
const pieceLength = 32 * 1024;
/** Longer lists and objects are written member by member. */
const maxMembers = 64;

/** A text in the pieces in which it was made: to join 13 MB of them, or to encode them at once, holds the event loop. */
export type Pieces = { pieces: readonly string[]; bytes: number };

/** JSON of a value. `count` is told the bytes of each piece before the next one is made; what it throws ends the work. */
export async function toJsonInTurns(value: unknown, count: (bytes: number) => Promise<void>): Promise<Pieces> {
  const writer = { text: '' };
  const pieces: string[] = [];
  let bytes = 0;
  const take = async () => {
    const taken = Buffer.byteLength(writer.text);
    await count(taken);
    pieces.push(writer.text);
    bytes += taken;
    writer.text = '';
  };
  for (const _full of write(writer, value)) {
    await take();
    const turn = giveWay();
    if (turn) await turn;
  }
  if (writer.text !== '') await take();
  return { pieces, bytes };
}

/** Appends the JSON of a value; yields whenever a piece is full, which is then taken away. */
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
