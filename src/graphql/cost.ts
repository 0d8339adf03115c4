// Size of an operation: its depth, and its cost, which is the largest number of objects that it can
// return. An object costs 1. A list costs its size times (1 + its children); its size is `first` or
// `last`, else what the field says, else 20. `totalCount` costs 10. Plain values that are asked for
// by number (`nextRuns(first: 50)`) cost that number; other fields 0. A field that reads more than
// it returns adds its `extensions.weight`.
import {
  type FieldNode,
  type FragmentSpreadNode,
  getNamedType,
  getNullableType,
  type GraphQLOutputType,
  type GraphQLSchema,
  isCompositeType,
  isInterfaceType,
  isListType,
  isObjectType,
  Kind,
  type NamedTypeNode,
  type OperationDefinitionNode,
  type SelectionSetNode,
  type ValidationContext,
  type ValueNode,
  valueFromASTUntyped,
} from 'graphql';

/** Assumed size of a list inside of an introspection; `types` has its real size. */
const introspectionListSize = 5;
const pageSize = 20;
/** Largest size that counts: resolvers refuse larger pages by themselves. */
const largestPage = 1_000;

type Part = { depth: number; cost: number; introspectionDepth: number; introspectionCost: number };
type Measure = Part & { rootFields: number };

/** Measures an operation, which need not be valid. */
export function measure(
  operation: OperationDefinitionNode,
  context: ValidationContext,
  variables: Record<string, unknown>,
): Measure {
  const defaults = new Map(operation.variableDefinitions?.map((item) => [item.variable.name.value, item.defaultValue]));
  const walk = new Walk(context, { variables, defaults });
  const parent = context.getSchema().getRootType(operation.operation) ?? undefined;
  const part = walk.set(operation.selectionSet, { parent, listSize: 1, introspecting: false, isRoot: true });
  return { ...part, rootFields: walk.rootFields };
}

/** Values of an operation's variables, and the defaults of those that have none. */
type VariableValues = {
  variables: Record<string, unknown>;
  defaults: Map<string, ValueNode | undefined>;
};

/** Where a selection set stands. */
type Place = {
  parent: GraphQLOutputType | undefined;
  /** Number of items in the `edges` and `nodes` of a connection. */
  listSize: number;
  introspecting: boolean;
  isRoot: boolean;
};

/** One walk over an operation. A fragment is measured once for each size of list that it stands in. */
class Walk {
  rootFields = 0;
  readonly #context: ValidationContext;
  readonly #schema: GraphQLSchema;
  readonly #values: VariableValues;
  readonly #typeCount: number;
  readonly #fragments = new Map<string, Part>();
  /** Names of the fragments around the place of the walk: a fragment inside of itself ends there. */
  readonly #open = new Set<string>();

  constructor(context: ValidationContext, values: VariableValues) {
    this.#context = context;
    this.#schema = context.getSchema();
    this.#values = values;
    this.#typeCount = Object.keys(this.#schema.getTypeMap()).length;
  }

  set({ selections }: SelectionSetNode, place: Place): Part {
    const sum: Part = { depth: 0, cost: 0, introspectionDepth: 0, introspectionCost: 0 };
    for (const selection of selections) {
      if (selection.kind === Kind.FIELD) {
        if (place.isRoot) this.rootFields++;
        add(sum, this.#field(selection, place));
      } else if (selection.kind === Kind.INLINE_FRAGMENT) {
        const parent = this.#typeOf(selection.typeCondition) ?? place.parent;
        add(sum, this.set(selection.selectionSet, { ...place, parent }));
      } else add(sum, this.#fragment(selection, place));
    }
    return sum;
  }

  /** Null for a fragment that does not exist or contains itself: another rule reports it. */
  #fragment({ name: { value: name } }: FragmentSpreadNode, place: Place): Part | null {
    const fragment = this.#context.getFragment(name);
    if (!fragment || this.#open.has(name)) return null;
    const key = `${name} ${place.listSize} ${place.introspecting}`;
    const measured = this.#fragments.get(key);
    if (measured) return measured;
    this.#open.add(name);
    const part = this.set(fragment.selectionSet, { ...place, parent: this.#typeOf(fragment.typeCondition) });
    this.#open.delete(name);
    this.#fragments.set(key, part);
    return part;
  }

  #typeOf(condition: NamedTypeNode | undefined): GraphQLOutputType | undefined {
    const type = condition && this.#schema.getType(condition.name.value);
    return isCompositeType(type) ? type : undefined;
  }

  #field(field: FieldNode, { parent, listSize, introspecting }: Place): Part {
    const name = field.name.value;
    const inside = introspecting || name === '__schema' || name === '__type';
    const { type, listSize: ownSize, weight } = fieldOf(this.#schema, parent, name);
    const argument = argumentsOf(field, this.#values);
    const weighed = weight?.(argument) ?? 0;
    const asked = inside ? undefined : askedSize(field, this.#values);
    if (!field.selectionSet) {
      const cost = inside ? 0 : name === 'totalCount' ? 10 : (asked ?? 0);
      return { depth: Number(!inside), introspectionDepth: Number(inside), cost: cost + weighed, introspectionCost: 0 };
    }
    const named = type && (getNamedType(type) as GraphQLOutputType);
    const place = { parent: named, listSize: asked ?? pageSize, introspecting: inside, isRoot: false };
    const children = this.set(field.selectionSet, place);
    const isList = type !== undefined && isListType(getNullableType(type)) && !String(named).endsWith('Connection');
    const sizeOf = () => {
      if (inside) return name === 'types' ? this.#typeCount : introspectionListSize;
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
  }
}

function add(sum: Part, part: Part | null): void {
  if (!part) return;
  sum.depth = Math.max(sum.depth, part.depth);
  sum.introspectionDepth = Math.max(sum.introspectionDepth, part.introspectionDepth);
  sum.cost += part.cost;
  sum.introspectionCost += part.introspectionCost;
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
function argumentsOf(field: FieldNode, { variables, defaults }: VariableValues): (name: string) => unknown {
  return (name) => {
    const value = field.arguments?.find((argument) => argument.name.value === name)?.value;
    if (!value) return undefined;
    const isUnset = value.kind === Kind.VARIABLE && variables[value.name.value] === undefined;
    const literal = isUnset ? defaults.get(value.name.value) : value;
    return literal && valueFromASTUntyped(literal, variables);
  };
}

/** Size that `first`, `last` or a list of ids asks for; undefined when none of them is passed. */
function askedSize(field: FieldNode, { variables, defaults }: VariableValues): number | undefined {
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
