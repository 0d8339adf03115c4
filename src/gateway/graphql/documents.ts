// Documents that were found valid, by their text: clients send the same few texts again and again. What depends on the
// text alone is done once; what depends on variables or on who asks is never kept.
import type { DocumentNode } from 'graphql';

export type Documents = {
  /** The parsed document of a text that is kept. */
  find(source: unknown): DocumentNode | undefined;
  /** Whether all rules that look at the text alone have passed. */
  isValid(document: DocumentNode): boolean;
  /** Keeps a valid document, unless its text is long; the one that was not asked for longest makes room. */
  keep(document: DocumentNode): void;
};

const longestText = 8_000;
/** Of all texts together. A document takes some hundred bytes for each word of its text. */
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
      add(text, document); // as the newest
      for (const [oldest] of kept) {
        if (characters <= mostCharacters) return;
        remove(oldest);
      }
    },
  };
}
