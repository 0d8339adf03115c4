// The parts of an operation that logs and metrics may show: its kind, its name and its root fields.
// Never its text, whose literals may be secret, and never its variables. Only for valid documents:
// there every name is one of the schema, except the name of the operation.
import { type DocumentNode, getOperationAST, Kind, type SelectionSetNode } from 'graphql';

export type OperationKind = 'query' | 'mutation' | 'subscription';
export type Operation = { kind: OperationKind; name: string | null; fields: string[] };

const maxFields = 10;
const maxNameLength = 100;

/**
 * Describes an operation; null when the document has no operation of that name. `fields` has each
 * root field once, at most ten.
 */
export function describeOperation(document: DocumentNode, operationName?: string | null): Operation | null {
  const operation = getOperationAST(document, operationName);
  if (!operation) return null;
  const fields = new Set<string>();
  collectFields(document, operation.selectionSet, fields, new Set());
  return {
    kind: operation.operation,
    name: operation.name?.value.slice(0, maxNameLength) ?? null,
    fields: [...fields].slice(0, maxFields),
  };
}

function collectFields(document: DocumentNode, set: SelectionSetNode, fields: Set<string>, seen: Set<string>): void {
  for (const selection of set.selections) {
    if (selection.kind === Kind.FIELD) {
      fields.add(selection.name.value);
      continue;
    }
    if (selection.kind === Kind.INLINE_FRAGMENT) {
      collectFields(document, selection.selectionSet, fields, seen);
      continue;
    }
    const name = selection.name.value;
    if (seen.has(name)) continue;
    seen.add(name);
    const fragment = document.definitions.find(
      (definition) => definition.kind === Kind.FRAGMENT_DEFINITION && definition.name.value === name,
    );
    if (fragment?.kind === Kind.FRAGMENT_DEFINITION) collectFields(document, fragment.selectionSet, fields, seen);
  }
}
