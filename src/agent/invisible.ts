// Removes what a terminal does not show, e.g. colour codes and characters without width: they may
// stand inside of a secret and hide it from the search.

/** Escape sequences: CSI (colours), OSC (titles, links), and the others, of two characters. */
// eslint-disable-next-line no-control-regex -- escape sequences are what it is about
const escapes = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])/;
/** Soft hyphens, joiners, direction marks, variation selectors. */
const widthless = /[\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]|\u034f|[\ufe00-\ufe0f]/;
const pattern = new RegExp(`${escapes.source}|${widthless.source}`, 'g');

/**
 * The visible text. `places` gives the index of each of its characters in the whole text; null when
 * nothing was removed.
 */
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
