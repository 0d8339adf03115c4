// Variables, checked by us before graphql-js coerces them: it echoes the values it refuses, and a value may be a secret
// or stand next to one. Ours name the place and what is expected, all problems at once.
import {
  type GraphQLInputType,
  type GraphQLSchema,
  GraphQLError,
  isEnumType,
  isInputObjectType,
  isInputType,
  isListType,
  isNonNullType,
  type OperationDefinitionNode,
  typeFromAST,
} from 'graphql';
import { closest } from '../errors.ts';

/** Problems of an operation's variables; empty when all can be coerced. No message holds a value. */
export function checkVariables(
  schema: GraphQLSchema,
  operation: OperationDefinitionNode,
  variables: Record<string, unknown>,
): GraphQLError[] {
  const errors: GraphQLError[] = [];
  for (const definition of operation.variableDefinitions ?? []) {
    const name = definition.variable.name.value;
    const type = typeFromAST(schema, definition.type);
    if (!type || !isInputType(type)) continue; // another rule says what is wrong
    if (variables[name] === undefined && definition.defaultValue) continue;
    check(type, variables[name], [name], (path, message) => {
      const place = path.length > 1 ? ` at "${path.slice(1).join('.')}"` : '';
      errors.push(
        new GraphQLError(`Variable "$${name}"${place}: ${message}`, {
          nodes: definition,
          extensions: { code: 'BAD_USER_INPUT', path, http: { status: 400 } },
        }),
      );
    });
  }
  return errors;
}

type Report = (path: string[], message: string) => void;

function check(type: GraphQLInputType, value: unknown, path: string[], report: Report): void {
  if (isNonNullType(type)) {
    if (value === undefined || value === null) return report(path, `is required (${type}).`);
    return check(type.ofType, value, path, report);
  }
  if (value === undefined || value === null) return;
  if (isListType(type)) {
    if (!Array.isArray(value)) return check(type.ofType, value, path, report); // GraphQL makes a list of one
    return value.forEach((item, index) => check(type.ofType, item, [...path, String(index)], report));
  }
  if (isInputObjectType(type)) return checkObject(type, value, path, report);
  if (isEnumType(type)) {
    const names = type.getValues().map((item) => item.name);
    if (typeof value !== 'string' || !names.includes(value)) report(path, `expected one of ${names.join(', ')}.`);
    return;
  }
  try {
    type.coerceInputValue(value);
  } catch (error) {
    const ours = error instanceof GraphQLError && error.message.startsWith('Expected ');
    report(path, ours ? lowerFirst(error.message) : `expected ${expectations[type.name] ?? type.name}.`);
  }
}

const expectations: Record<string, string> = {
  Int: 'a whole number of 32 bits (Int)',
  Float: 'a finite number (Float)',
  String: 'a string (String)',
  Boolean: 'true or false (Boolean)',
  ID: 'an id, as a string (ID)',
};

function checkObject(
  type: Extract<GraphQLInputType, { getFields(): unknown }>,
  value: unknown,
  path: string[],
  report: Report,
): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return report(path, `expected an object (${type.name}).`);
  }
  const fields = type.getFields();
  for (const key of Object.keys(value)) {
    if (fields[key]) continue;
    const near = closest(key, Object.keys(fields));
    report([...path, key], `${type.name} has no such field.${near ? ` Did you mean "${near}"?` : ''}`);
  }
  for (const [name, field] of Object.entries(fields)) {
    const item = (value as Record<string, unknown>)[name];
    if (item === undefined && field.defaultValue !== undefined) continue;
    if (item === undefined && field.default !== undefined) continue;
    check(field.type, item, [...path, name], report);
  }
  if (type.isOneOf) {
    const given = Object.values(value).filter((item) => item !== undefined && item !== null);
    if (given.length !== 1) report(path, `exactly one of ${Object.keys(fields).join(', ')} must be set.`);
  }
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
