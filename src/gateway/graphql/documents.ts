// Cache of valid documents by their text: clients send the same few texts again and again. Only
// checks that depend on the text alone are skipped for a cached document; those of variables and
// permissions run each time.
import type { DocumentNode } from 'graphql';

export type Documents = {
  /** The parsed document of a cached text; undefined for another. */
  find(source: unknown): DocumentNode | undefined;
  /** Whether the document has passed all rules that depend on its text alone. */
  isValid(document: DocumentNode): boolean;
  /**
   * Caches a valid document, unless its text is longer than 8,000 characters. The least recently
   * kept documents make room.
   */
  keep(document: DocumentNode): void;
};

const longestText = 8_000;
/**
 * Upper bound of all cached texts together, in characters. A parsed document takes some hundred
 * bytes for each word of its text.
 */
const mostCharacters = 200_000;

export function createDocuments(): Documents {
  const kept = new Map<string, DocumentNode>();
  const valid = new WeakSet<DocumentNode>();
  let characters = 0;
  const remove = (text: string) => {
    if (kept.delete(text)) characters -= text.length;
  };
  const add = (text: string, document: DocumentNode) => {
    remove(text);
    kept.set(text, document);
    characters += text.length;
  };
  return {
    find: (source) => (typeof source === 'string' ? kept.get(source) : undefined),
    isValid: (document) => valid.has(document),
    keep(document) {
      const text = document.loc?.source.body;
      if (text === undefined || text.length > longestText) return;
      valid.add(document);
      add(text, document); // moves it to the end of the Map, as the newest
      for (const [oldest] of kept) {
        if (characters <= mostCharacters) return;
        remove(oldest);
      }
    },
  };
}
