// Limits of an operation, checked before anything runs or any stream opens, on every transport alike: tokens (by the
// parser), depth, aliases, root fields, directives and cost. Cost is the number of objects that an operation returns at
// most: an object 1, a list its `first`/`last` (else what the field says, else 20) times (1 + its children), `totalCount` 10, plain
// values that are asked for by number (`nextRuns(first: 50)`) that number, other fields 0. A field that reads more than it
// returns adds its `extensions.weight`.
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
  /** Values of the operation's variables: sizes of pages are often variables. */
  variables: Record<string, unknown>;
  /** Told what the operation is charged, when it is not too large: its cost, and that of what it asks of the schema. */
  onCost?: (cost: number) => void;
};

/** Most characters of a document: what is longer belongs into variables. */
export const maxDocument = 131_072;
/** Most tokens of a document; the parser stops there. */
export const maxTokens = 4_000;
/** Characters of a name or a number; graphql-js compares unknown names with all that it has. */
const maxWord = 200;
const maxOperations = 50;
const maxFragments = 100;
/** Of comparing fields that may be the same one; a hundred times what the standard introspection query needs. */
const maxOverlap = 50_000;
const maxAliases = 100;
const maxRootFields = 50;
const maxDirectives = 50;
const maxIntrospectionDepth = 16;
/** About three times what the standard introspection query costs: aliases could ask for the schema a hundred times. */
const maxIntrospectionCost = 200_000;
/** What of an introspection is charged as one object. */
const introspectionPerPoint = 100;
/** What a list inside of an introspection holds, about; `types` is counted. */
const introspectionListSize = 5;
const pageSize = 20;
/** No page holds more; a resolver refuses what asks for more, by name. */
const largestPage = 1_000;

const smallerHint = 'Ask for smaller pages (`first`), fewer fields and aliases, or in several operations.';

/** Validation rule that refuses what is too large. Runs beside the standard rules, so it meets invalid documents too. */
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
        // Each bounds the work of those below it.
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
        return false; // what is inside of it was walked here
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
const counted = new WeakMap<DocumentNode, Counts>();

/** Of the whole document, whatever its variables are: a document that is kept is counted once. */
function countIn(document: DocumentNode): Counts {
  const known = counted.get(document);
  if (known) return known;
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
  counted.set(document, counts);
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

  // `listSize`: how many items a connection's `edges` and `nodes` hold.
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
        if (!fragment || open.has(name)) continue; // another rule says what is wrong
        const key = `${name} ${listSize} ${introspecting}`;
        let known = seen.get(key);
        if (!known) {
          open.add(name);
          const type = schema.getType(fragment.typeCondition.name.value);
          known = walk(
            fragment.selectionSet,
            isCompositeType(type) ? type : undefined,
            listSize,
            introspecting,
            isRoot,
          );
          open.delete(name);
          seen.set(key, known);
        }
        add(known);
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

/** A field's type, and what it says in `extensions`: how many items its list may hold, and what it adds to the cost. */
function fieldOf(schema: GraphQLSchema, parent: GraphQLOutputType | undefined, name: string): WeighedField {
  if (!isObjectType(parent) && !isInterfaceType(parent)) return {};
  const field = schema.getField(parent, name);
  if (!field) return {};
  return { ...(field.extensions as Pick<WeighedField, 'listSize' | 'weight'>), type: field.type };
}

/** Reads the values of a field's arguments, whatever they are: they may not have been checked yet. */
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

/** What `first`, `last` or a list of ids asks for; undefined when none is given. */
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
    const given = variables[name];
    if (given === undefined) return sizeOfLiteral(defaults.get(name));
    if (Array.isArray(given)) return given.length;
    return typeof given === 'number' ? given : undefined;
  }
}

function sizeOfLiteral(value: ValueNode | undefined): number | undefined {
  if (value?.kind === Kind.LIST) return value.values.length;
  return value?.kind === Kind.INT ? Number(value.value) : undefined;
}
