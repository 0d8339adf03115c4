// Checks variables before graphql-js coerces them: its errors quote the values, and a value may be
// a secret or stand next to one. The errors here name the place and the expected type, all at once.
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
import { closest } from '../closest.ts';
import { maxErrors } from './error.ts';

/** One more than an answer carries, so that the answer can tell that there are more. */
const maxProblems = maxErrors + 1;
const maxShownKey = 80;

/**
 * Returns problems of an operation's variables, at most 21; none when all can be coerced. No
 * message holds a value; with `hideSuggestions` none suggests a name.
 */
export function checkVariables(
  schema: GraphQLSchema,
  operation: OperationDefinitionNode,
  variables: Record<string, unknown>,
  hideSuggestions = false,
): GraphQLError[] {
  const errors: GraphQLError[] = [];
  const place = (path: string[]) => (path.length > 1 ? ` at "${path.slice(1).join('.')}"` : '');
  const report: Report = {
    isFull: () => errors.length >= maxProblems,
    hideSuggestions,
    add(path, message) {
      if (errors.length >= maxProblems) return;
      const extensions = { code: 'BAD_USER_INPUT', path, http: { status: 400 } };
      const text = `Variable "$${path[0]}"${place(path)}: ${message}`;
      errors.push(new GraphQLError(text, { nodes: nodes.get(path[0] ?? ''), extensions }));
    },
  };
  const nodes = new Map(operation.variableDefinitions?.map((node) => [node.variable.name.value, node]));
  for (const definition of operation.variableDefinitions ?? []) {
    const name = definition.variable.name.value;
    const type = typeFromAST(schema, definition.type);
    if (!type || !isInputType(type)) continue; // another rule reports it
    if (variables[name] === undefined && definition.defaultValue) continue;
    check(type, variables[name], [name], report);
  }
  return errors;
}

type Report = {
  add(path: string[], message: string): void;
  /** True when no more problems are kept, so that the check can stop. */
  isFull(): boolean;
  hideSuggestions: boolean;
};

function check(type: GraphQLInputType, value: unknown, path: string[], report: Report): void {
  if (report.isFull()) return;
  if (isNonNullType(type)) {
    if (value === undefined || value === null) return report.add(path, `is required (${type}).`);
    return check(type.ofType, value, path, report);
  }
  if (value === undefined || value === null) return;
  if (isListType(type)) {
    // GraphQL takes a single value as a list of one
    if (!Array.isArray(value)) return check(type.ofType, value, path, report);
    return value.forEach((item, index) => check(type.ofType, item, [...path, String(index)], report));
  }
  if (isInputObjectType(type)) return checkObject(type, value, path, report);
  if (isEnumType(type)) {
    const names = type.getValues().map((item) => item.name);
    if (typeof value !== 'string' || !names.includes(value)) report.add(path, `expected one of ${names.join(', ')}.`);
    return;
  }
  try {
    type.coerceInputValue(value);
  } catch (error) {
    const isOwnMessage = error instanceof GraphQLError && error.message.startsWith('Expected ');
    report.add(path, isOwnMessage ? lowerFirst(error.message) : `expected ${expectations[type.name] ?? type.name}.`);
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
    return report.add(path, `expected an object (${type.name}).`);
  }
  const fields = type.getFields();
  for (const key of Object.keys(value)) {
    if (report.isFull()) return;
    if (fields[key]) continue;
    const near = report.hideSuggestions ? undefined : closest(key, Object.keys(fields));
    const hint = near ? ` Did you mean "${near}"?` : '';
    report.add([...path, key.slice(0, maxShownKey)], `${type.name} has no such field.${hint}`);
  }
  for (const [name, field] of Object.entries(fields)) {
    const item = (value as Record<string, unknown>)[name];
    if (item === undefined && field.defaultValue !== undefined) continue;
    if (item === undefined && field.default !== undefined) continue;
    check(field.type, item, [...path, name], report);
  }
  if (type.isOneOf) {
    const setFields = Object.values(value).filter((item) => item !== undefined && item !== null);
    if (setFields.length !== 1) report.add(path, `exactly one of ${Object.keys(fields).join(', ')} must be set.`);
  }
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
