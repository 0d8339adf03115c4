// Validation rule for the one operation of a document that will run: its variables, and its
// idempotency key.
import {
  type DocumentNode,
  type FieldNode,
  getNamedType,
  type getOperationAST,
  GraphQLError,
  isInputObjectType,
  Kind,
  type SelectionSetNode,
  type ValidationContext,
  type ValidationRule,
} from 'graphql';
import { checkVariables } from '../../graphql/input.ts';

/**
 * Rule that checks the variables of the operation that will run, and that the header
 * `Idempotency-Key` stands for one mutation only.
 */
export function operationRule(
  operationOf: (document: DocumentNode) => ReturnType<typeof getOperationAST>,
  input: { variables: Record<string, unknown>; idempotencyKey: string | null; hideSuggestions: boolean },
): ValidationRule {
  return (context) => ({
    Document(document) {
      const operation = operationOf(document);
      if (!operation) return false;
      const schema = context.getSchema();
      const problems = checkVariables(schema, operation, input.variables, input.hideSuggestions);
      for (const error of problems) context.reportError(error);
      const root = schema.getMutationType();
      if (input.idempotencyKey === null || operation.operation !== 'mutation' || !root) return false;
      const keyed = rootFields(context, operation.selectionSet).filter((node) => {
        const argument = root.getFields()[node.name.value]?.args.find(({ name }) => name === 'input');
        const type = argument && getNamedType(argument.type);
        return isInputObjectType(type) && 'idempotencyKey' in type.getFields();
      });
      if (keyed.length > 1) {
        const message =
          'The header Idempotency-Key can stand for one mutation; this operation has several that take a key.';
        context.reportError(new GraphQLError(message, { nodes: operation }));
      }
      return false; // the rule needs no visit of inner nodes
    },
  });
}

/**
 * Fields of a selection, including those of its fragments. Each fragment counts once, so that a
 * cycle of fragments ends.
 */
function rootFields(context: ValidationContext, set: SelectionSetNode, seen = new Set<string>()): FieldNode[] {
  return set.selections.flatMap((selection) => {
    if (selection.kind === Kind.FIELD) return [selection];
    if (selection.kind === Kind.INLINE_FRAGMENT) return rootFields(context, selection.selectionSet, seen);
    const name = selection.name.value;
    const fragment = seen.has(name) ? undefined : context.getFragment(name);
    seen.add(name);
    return fragment ? rootFields(context, fragment.selectionSet, seen) : [];
  });
}
