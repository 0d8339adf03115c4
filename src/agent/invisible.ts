// What a terminal obeys or does not show: colour codes and characters without a width, which may stand inside of a secret.

/** CSI, OSC, and the others, of two characters. */
// eslint-disable-next-line no-control-regex -- escape sequences are what it is about
const escapes = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])/;
/** Soft hyphens, joiners, marks of direction, selectors of variants. */
const widthless = /[\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]|\u034f|[\ufe00-\ufe0f]/;
const pattern = new RegExp(`${escapes.source}|${widthless.source}`, 'g');

/** The text as it is seen, and for each of its characters where it stands in the whole text; null: where it stands here. */
export type Visible = { text: string; places: Int32Array | null };

export function visible(whole: string): Visible {
  const text = whole.replace(pattern, '');
  if (text.length === whole.length) return { text, places: null };
  const places = new Int32Array(text.length);
  let [count, next] = [0, 0];
  for (const { 0: hidden, index } of whole.matchAll(pattern)) {
    while (next < index) places[count++] = next++;
    next += hidden.length;
  }
  while (next < whole.length) places[count++] = next++;
  return { text, places };
}
