// Counts the work that a document makes for the standard rule OverlappingFieldsCanBeMerged. The
// rule compares all fields of one name in a selection set with each other, and again the fields
// inside of them, so its time grows at least with the square of their number. The count takes
// linear time and stops at a maximum, so that the rule need not run.
import {
  type DocumentNode,
  type FieldNode,
  type FragmentDefinitionNode,
  Kind,
  type SelectionSetNode,
  visit,
} from 'graphql';

/**
 * Levels to merge; no operation within the limit of depth has more, only fragments in a circle do.
 */
const maxLevels = 64;

/**
 * Returns the number of fields to collect and compare for the document; counting stops beyond
 * `max`.
 */
export function countOverlaps(document: DocumentNode, max: number): number {
  const count = new OverlapCount(document, max);
  visit(document, {
    SelectionSet(set) {
      count.add(set);
    },
  });
  return count.total;
}

class OverlapCount {
  total = 0;
  readonly #max: number;
  readonly #fragments = new Map<string, FragmentDefinitionNode>();

  constructor(document: DocumentNode, max: number) {
    this.#max = max;
    for (const definition of document.definitions) {
      if (definition.kind === Kind.FRAGMENT_DEFINITION) this.#fragments.set(definition.name.value, definition);
    }
  }

  add(set: SelectionSetNode): void {
    this.#merge([set], 0);
  }

  /**
   * Merges selection sets: fields of one name are compared each with each, then their own sets are
   * merged.
   */
  #merge(sets: readonly SelectionSetNode[], level: number): void {
    if (level > maxLevels) return;
    const fields = new Map<string, FieldNode[]>();
    const seen = new Set<string>();
    for (const set of sets) this.#collect(set, fields, seen);
    for (const same of fields.values()) {
      if (same.length === 1) continue; // `countOverlaps` visits its own set separately
      this.total += same.length * same.length;
      if (this.total > this.#max) return;
      this.#merge(
        same.flatMap(({ selectionSet }) => selectionSet ?? []),
        level + 1,
      );
    }
  }

  #collect(set: SelectionSetNode, fields: Map<string, FieldNode[]>, seen: Set<string>): void {
    for (const selection of set.selections) {
      if (++this.total > this.#max) return;
      if (selection.kind === Kind.FIELD) {
        const name = (selection.alias ?? selection.name).value;
        const same = fields.get(name);
        if (same) same.push(selection);
        else fields.set(name, [selection]);
      } else if (selection.kind === Kind.INLINE_FRAGMENT) {
        this.#collect(selection.selectionSet, fields, seen);
      } else if (!seen.has(selection.name.value)) {
        seen.add(selection.name.value);
        const fragment = this.#fragments.get(selection.name.value);
        if (fragment) this.#collect(fragment.selectionSet, fields, seen);
      }
    }
  }
}
