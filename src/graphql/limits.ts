// Limits of an operation: tokens (in the parser), depth, aliases, root fields, directives and cost.
// They are checked before anything runs or a stream opens, on every transport. Cost is the largest
// number of objects that an operation can return. An object costs 1. A list costs its size times (1
// + its children); its size is `first` or `last`, else what the field says, else 20. `totalCount`
// costs 10. Plain values that are asked for by number (`nextRuns(first: 50)`) cost that number;
// other fields 0. A field that reads more than it returns adds its `extensions.weight`.
import {
  type ASTVisitor,
  type DefinitionNode,
  type DocumentNode,
  type FieldNode,
  type FragmentDefinitionNode,
  getNamedType,
  getNullableType,
  GraphQLError,
  type GraphQLOutputType,
  type GraphQLSchema,
  isCompositeType,
  isInterfaceType,
  isListType,
  isObjectType,
  Kind,
  type OperationDefinitionNode,
  type SelectionSetNode,
  TokenKind,
  type ValidationContext,
  type ValueNode,
  valueFromASTUntyped,
  visit,
} from 'graphql';
import { countOverlaps } from './overlap.ts';

export type Limits = {
  maxDepth: number;
  maxCost: number;
  /** Values of the operation's variables, which often hold the size of a page. */
  variables: Record<string, unknown>;
  /**
   * Called, when the operation is not too large, with its cost plus the cost of its introspection.
   */
  onCost?: (cost: number) => void;
};

/** Upper bound of a document, in characters; longer values belong into variables. */
export const maxDocument = 131_072;
/** Upper bound of the tokens of a document; the parser stops there. */
export const maxTokens = 4_000;
/**
 * Upper bound of a name or a number, in characters: graphql-js compares an unknown name with all
 * names of the schema.
 */
const maxWord = 200;
const maxOperations = 50;
const maxFragments = 100;
/**
 * Upper bound of steps to merge overlapping fields; a hundred times the need of the standard
 * introspection query.
 */
const maxOverlap = 50_000;
const maxAliases = 100;
const maxRootFields = 50;
const maxDirectives = 50;
const maxIntrospectionDepth = 16;
/**
 * About three times the cost of the standard introspection query: without it, aliases could ask for
 * the schema a hundred times.
 */
const maxIntrospectionCost = 200_000;
/** Introspection cost that is charged as one object. */
const introspectionPerPoint = 100;
/** Assumed size of a list inside of an introspection; `types` has its real size. */
const introspectionListSize = 5;
const pageSize = 20;
/** Largest size that counts: resolvers refuse larger pages by themselves. */
const largestPage = 1_000;

const smallerHint = 'Ask for smaller pages (`first`), fewer fields and aliases, or in several operations.';

/**
 * Validation rule that refuses operations beyond these limits. It runs beside the standard rules,
 * so it also gets invalid documents.
 */
export function limitsRule(limits: Limits): (context: ValidationContext) => ASTVisitor {
  return (context) => {
    const tooLarge = (message: string, node: DefinitionNode | undefined) =>
      context.reportError(
        new GraphQLError(message, {
          nodes: node,
          extensions: { code: 'OPERATION_TOO_LARGE', hint: smallerHint, http: { status: 400 } },
        }),
      );
    return {
      Document(document) {
        const counts = countIn(document);
        const { aliases, directives } = counts;
        const [first] = document.definitions;
        const checkText = (what: string, value: number, max: number) => {
          if (value > max) tooLarge(`The document has ${what} ${value}; ${max} is the most.`, first);
          return value <= max;
        };
        // Each check bounds the work of the next.
        const isReadable =
          checkText('a name or number of length', counts.longestWord, maxWord) &&
          checkText('operations', counts.operations, maxOperations) &&
          checkText('fragments', counts.fragments, maxFragments);
        if (!isReadable) return false;
        let isWithin = true;
        for (const operation of document.definitions) {
          if (operation.kind !== Kind.OPERATION_DEFINITION) continue;
          const measured = measure(operation, context, limits.variables);
          const check = (what: string, value: number, max: number) => {
            if (value <= max) return;
            isWithin = false;
            tooLarge(`The operation has ${what} ${value}; ${max} is the most.`, operation);
          };
          check('depth', measured.depth, limits.maxDepth);
          check('introspection depth', measured.introspectionDepth, maxIntrospectionDepth);
          check('introspection cost', measured.introspectionCost, maxIntrospectionCost);
          check('root fields', measured.rootFields, maxRootFields);
          check('aliases', aliases, maxAliases);
          check('directives', directives, maxDirectives);
          check('cost', measured.cost, limits.maxCost);
          const introspection = Math.ceil(measured.introspectionCost / introspectionPerPoint);
          if (measured.cost <= limits.maxCost) limits.onCost?.(measured.cost + introspection);
        }
        if (isWithin && overlapIn(document) > maxOverlap) {
          tooLarge(`The document repeats fields too often: merging them takes more than ${maxOverlap} steps.`, first);
        }
        return false; // the walk above has visited the inner nodes
      },
    };
  };
}

type Counts = {
  aliases: number;
  directives: number;
  operations: number;
  fragments: number;
  /** Characters of the longest name or number. */
  longestWord: number;
};
const countsByDocument = new WeakMap<DocumentNode, Counts>();

/**
 * Counts of a whole document. They do not depend on variables, so a cached document is counted
 * once.
 */
function countIn(document: DocumentNode): Counts {
  const cached = countsByDocument.get(document);
  if (cached) return cached;
  const counts: Counts = {
    aliases: 0,
    directives: 0,
    operations: 0,
    fragments: 0,
    longestWord: longestWordIn(document),
  };
  for (const { kind } of document.definitions) {
    if (kind === Kind.OPERATION_DEFINITION) counts.operations++;
    if (kind === Kind.FRAGMENT_DEFINITION) counts.fragments++;
  }
  visit(document, {
    Field(node) {
      if (node.alias) counts.aliases++;
    },
    Directive() {
      counts.directives++;
    },
  });
  countsByDocument.set(document, counts);
  return counts;
}

function longestWordIn({ loc }: DocumentNode): number {
  let longest = 0;
  for (let token = loc?.startToken; token; token = token.next ?? undefined) {
    const isWord = token.kind === TokenKind.NAME || token.kind === TokenKind.INT || token.kind === TokenKind.FLOAT;
    if (isWord) longest = Math.max(longest, token.end - token.start);
  }
  return longest;
}

const overlaps = new WeakMap<DocumentNode, number>();

function overlapIn(document: DocumentNode): number {
  const overlap = overlaps.get(document) ?? countOverlaps(document, maxOverlap);
  overlaps.set(document, overlap);
  return overlap;
}

type Part = { depth: number; cost: number; introspectionDepth: number; introspectionCost: number };
type Measure = Part & { rootFields: number };

function measure(
  operation: OperationDefinitionNode,
  context: ValidationContext,
  variables: Record<string, unknown>,
): Measure {
  const schema = context.getSchema();
  const seen = new Map<string, Part>();
  const open = new Set<string>();
  const defaults = new Map(operation.variableDefinitions?.map((item) => [item.variable.name.value, item.defaultValue]));
  const typeCount = Object.keys(schema.getTypeMap()).length;
  let rootFields = 0;

  const fragmentOf = (name: string): FragmentDefinitionNode | undefined => context.getFragment(name) ?? undefined;

  // `listSize`: number of items in the `edges` and `nodes` of a connection.
  const walk = (
    set: SelectionSetNode,
    parent: GraphQLOutputType | undefined,
    listSize: number,
    introspecting: boolean,
    isRoot: boolean,
  ): Part => {
    const sum: Part = { depth: 0, cost: 0, introspectionDepth: 0, introspectionCost: 0 };
    const add = (part: Part) => {
      sum.depth = Math.max(sum.depth, part.depth);
      sum.introspectionDepth = Math.max(sum.introspectionDepth, part.introspectionDepth);
      sum.cost += part.cost;
      sum.introspectionCost += part.introspectionCost;
    };
    for (const selection of set.selections) {
      if (selection.kind === Kind.FIELD) {
        if (isRoot) rootFields++;
        add(walkField(selection, parent, listSize, introspecting));
      } else if (selection.kind === Kind.INLINE_FRAGMENT) {
        const type = selection.typeCondition && schema.getType(selection.typeCondition.name.value);
        add(walk(selection.selectionSet, isCompositeType(type) ? type : parent, listSize, introspecting, isRoot));
      } else {
        const name = selection.name.value;
        const fragment = fragmentOf(name);
        if (!fragment || open.has(name)) continue; // another rule reports it
        const key = `${name} ${listSize} ${introspecting}`;
        let part = seen.get(key);
        if (!part) {
          open.add(name);
          const type = schema.getType(fragment.typeCondition.name.value);
          part = walk(fragment.selectionSet, isCompositeType(type) ? type : undefined, listSize, introspecting, isRoot);
          open.delete(name);
          seen.set(key, part);
        }
        add(part);
      }
    }
    return sum;
  };

  const walkField = (
    field: FieldNode,
    parent: GraphQLOutputType | undefined,
    listSize: number,
    introspecting: boolean,
  ): Part => {
    const name = field.name.value;
    const inside = introspecting || name === '__schema' || name === '__type';
    const { type, listSize: ownSize, weight } = fieldOf(schema, parent, name);
    const argument = argumentsOf(field, variables, defaults);
    const weighed = weight?.(argument) ?? 0;
    if (!field.selectionSet) {
      const cost = inside ? 0 : name === 'totalCount' ? 10 : (askedSize(field, variables, defaults) ?? 0);
      return { depth: Number(!inside), introspectionDepth: Number(inside), cost: cost + weighed, introspectionCost: 0 };
    }
    const asked = inside ? undefined : askedSize(field, variables, defaults);
    const named = type && (getNamedType(type) as GraphQLOutputType);
    const children = walk(field.selectionSet, named, asked ?? pageSize, inside, false);
    const isList = type !== undefined && isListType(getNullableType(type)) && !String(named).endsWith('Connection');
    const sizeOf = () => {
      if (inside) return name === 'types' ? typeCount : introspectionListSize;
      if (typeof ownSize === 'function') return ownSize(argument);
      return asked ?? ownSize ?? (name === 'edges' || name === 'nodes' ? listSize : pageSize);
    };
    const factor = isList ? sizeOf() : 1;
    return {
      depth: children.depth + Number(!inside),
      introspectionDepth: children.introspectionDepth + Number(inside),
      cost: inside ? 0 : factor * (1 + children.cost) + weighed,
      introspectionCost: inside ? factor * (1 + children.introspectionCost) : children.introspectionCost,
    };
  };

  const root = schema.getRootType(operation.operation) ?? undefined;
  return { ...walk(operation.selectionSet, root, 1, false, true), rootFields };
}

/** A number that depends on the values of a field's arguments. */
type ByArguments = (argument: (name: string) => unknown) => number;

type WeighedField = { type?: GraphQLOutputType; listSize?: number | ByArguments; weight?: ByArguments };

/**
 * The type of a field with its `extensions`: `listSize` is the number of items in its list,
 * `weight` an additional cost.
 */
function fieldOf(schema: GraphQLSchema, parent: GraphQLOutputType | undefined, name: string): WeighedField {
  if (!isObjectType(parent) && !isInterfaceType(parent)) return {};
  const field = schema.getField(parent, name);
  if (!field) return {};
  return { ...(field.extensions as Pick<WeighedField, 'listSize' | 'weight'>), type: field.type };
}

/** Returns a reader of a field's arguments. Their values may not have been validated yet. */
function argumentsOf(
  field: FieldNode,
  variables: Record<string, unknown>,
  defaults: Map<string, ValueNode | undefined>,
): (name: string) => unknown {
  return (name) => {
    const value = field.arguments?.find((argument) => argument.name.value === name)?.value;
    if (!value) return undefined;
    const isUnset = value.kind === Kind.VARIABLE && variables[value.name.value] === undefined;
    const literal = isUnset ? defaults.get(value.name.value) : value;
    return literal && valueFromASTUntyped(literal, variables);
  };
}

/** Size that `first`, `last` or a list of ids asks for; undefined when none of them is passed. */
function askedSize(
  field: FieldNode,
  variables: Record<string, unknown>,
  defaults: Map<string, ValueNode | undefined>,
): number | undefined {
  for (const { name, value } of field.arguments ?? []) {
    if (!['first', 'last', 'ids'].includes(name.value)) continue;
    const size = value.kind === Kind.VARIABLE ? sizeOfVariable(value.name.value) : sizeOfLiteral(value);
    if (size !== undefined) return Math.min(Math.max(size, 0), largestPage);
  }
  return undefined;

  function sizeOfVariable(name: string): number | undefined {
    const value = variables[name];
    if (value === undefined) return sizeOfLiteral(defaults.get(name));
    if (Array.isArray(value)) return value.length;
    return typeof value === 'number' ? value : undefined;
  }
}

function sizeOfLiteral(value: ValueNode | undefined): number | undefined {
  if (value?.kind === Kind.LIST) return value.values.length;
  return value?.kind === Kind.INT ? Number(value.value) : undefined;
}
