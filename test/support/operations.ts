// Generates random operations over a schema by a seed: fields, arguments, variables, aliases,
// fragments and directives of every kind in GraphQL. They follow grammar and types; the server may
// still refuse their values.
import {
  type GraphQLArgument,
  type GraphQLCompositeType,
  type GraphQLField,
  type GraphQLInputType,
  type GraphQLSchema,
  getNamedType,
  isAbstractType,
  isCompositeType,
  isEnumType,
  isInputObjectType,
  isListType,
  isNonNullType,
  isObjectType,
  isRequiredArgument,
  isRequiredInputField,
} from 'graphql';

export type Random = {
  /** Returns a whole number from 0 to below `limit`. */
  int(limit: number): number;
  chance(probability: number): boolean;
  pick<T>(items: readonly T[]): T;
};

/** Makes a generator (mulberry32): the same seed gives the same numbers. */
export function randomFrom(seed: number): Random {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const int = (limit: number) => Math.floor(next() * limit);
  return {
    int,
    chance: (probability) => next() < probability,
    pick: <T>(items: readonly T[]): T => items[int(items.length)] as T,
  };
}

export type OperationKind = 'query' | 'mutation' | 'subscription';
export type Operation = { kind: OperationKind; query: string; variables: Record<string, unknown> };

/** Returns a value of a scalar for the argument or input field `name`. */
export type ScalarValue = (scalar: string, name: string) => unknown;

const maxDepth = 5;

/** Generates an operation with one to three of the `roots`; a subscription has one. */
export function generateOperation(
  schema: GraphQLSchema,
  random: Random,
  options: { kind: OperationKind; roots: readonly string[]; scalarValue: ScalarValue },
): Operation {
  const definitions: string[] = [];
  const fragments: string[] = [];
  const variables: Record<string, unknown> = {};
  let names = 0;

  const declare = (type: string, value: unknown): string => {
    const name = `v${names++}`;
    definitions.push(`$${name}: ${type}`);
    variables[name] = value;
    return `$${name}`;
  };

  const valueOf = (type: GraphQLInputType, name: string, depth: number): unknown => {
    if (isNonNullType(type)) return valueOf(type.ofType, name, depth);
    if (isListType(type)) return Array.from({ length: random.int(4) }, () => valueOf(type.ofType, name, depth + 1));
    if (isEnumType(type)) return random.pick(type.getValues()).name;
    if (!isInputObjectType(type)) return options.scalarValue(type.name, name);
    const fields = Object.values(type.getFields());
    const chosen = type.isOneOf
      ? [random.pick(fields)]
      : fields.filter((field) => isRequiredInputField(field) || (depth < 4 && random.chance(0.3)));
    return Object.fromEntries(chosen.map((field) => [field.name, valueOf(field.type, field.name, depth + 1)]));
  };

  const argumentsOf = (args: readonly GraphQLArgument[]): string => {
    const given = args.flatMap((argument) => {
      if (!isRequiredArgument(argument) && !random.chance(0.4)) return [];
      const isNull = !isNonNullType(argument.type) && random.chance(0.05);
      const value = isNull ? null : valueOf(argument.type, argument.name, 0);
      const literal = random.chance(0.6) ? literalOf(argument.type, value) : null;
      return [`${argument.name}: ${literal ?? declare(String(argument.type), value)}`];
    });
    return given.length > 0 ? `(${given.join(', ')})` : '';
  };

  const directive = () => {
    if (!random.chance(0.08)) return '';
    const name = random.pick(['include', 'skip']);
    return ` @${name}(if: ${random.chance(0.5) ? declare('Boolean!', random.chance(0.5)) : name === 'include'})`;
  };

  // A field in a fragment of an abstract type gets an alias of its own, since two types may use one
  // name for different types.
  const fieldOf = (field: GraphQLField<unknown, unknown>, depth: number, isOwn: boolean, isRoot: boolean): string => {
    const alias = isOwn || field.args.length > 0 || random.chance(0.2) ? `f${names++}: ` : '';
    const type = getNamedType(field.type);
    const selection = isCompositeType(type) ? ` ${selectionOf(type, depth + 1, isOwn)}` : '';
    return `${alias}${field.name}${argumentsOf(field.args)}${isRoot ? '' : directive()}${selection}`;
  };

  const selectionOf = (type: GraphQLCompositeType, depth: number, isOwn: boolean): string => {
    if (isAbstractType(type)) {
      const types = schema.getPossibleTypes(type).filter(() => random.chance(0.5));
      const parts = types.map((part) => `... on ${part.name}${directive()} ${selectionOf(part, depth, true)}`);
      return `{ __typename ${parts.join(' ')} }`;
    }
    const fields = isObjectType(type) ? Object.values(type.getFields()) : [];
    const fit = fields.filter((field) => depth < maxDepth || !isCompositeType(getNamedType(field.type)));
    const some = Array.from({ length: 1 + random.int(5) }, () => random.pick(fit)).filter(
      (field) => field !== undefined,
    );
    const body = `{ ${[...some.map((field) => fieldOf(field, depth, isOwn, false)), '__typename'].join(' ')} }`;
    if (!random.chance(0.12)) return body;
    const name = `F${names++}`;
    fragments.push(`fragment ${name} on ${type.name} ${body}`);
    return `{ ...${name} }`;
  };

  const root = schema.getRootType(options.kind as never);
  const count = options.kind === 'subscription' ? 1 : 1 + random.int(3);
  const fields = Array.from({ length: count }, () => root?.getFields()[random.pick(options.roots)]);
  const body = fields.flatMap((field) => (field ? [fieldOf(field, 0, false, true)] : [])).join(' ');
  const head = definitions.length > 0 ? ` (${definitions.join(', ')})` : '';
  return { kind: options.kind, query: `${options.kind}${head} { ${body} } ${fragments.join(' ')}`.trim(), variables };
}

/** Returns the value as text of a document; null for a value that only a variable can hold. */
function literalOf(type: GraphQLInputType, value: unknown): string | null {
  if (value === null) return 'null';
  if (isNonNullType(type)) return literalOf(type.ofType, value);
  if (isEnumType(type)) return String(value);
  if (isListType(type) && Array.isArray(value)) {
    const items = value.map((item) => literalOf(type.ofType, item));
    return items.includes(null) ? null : `[${items.join(', ')}]`;
  }
  if (isInputObjectType(type)) {
    const fields = Object.entries(value as object).map(([name, item]) => {
      const field = type.getFields()[name];
      const literal = field ? literalOf(field.type, item) : null;
      return literal && `${name}: ${literal}`;
    });
    return fields.includes(null) ? null : `{ ${fields.join(', ')} }`;
  }
  if (typeof value === 'object' || (typeof value === 'string' && !value.isWellFormed())) return null;
  return JSON.stringify(value);
}
