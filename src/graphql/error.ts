// Errors outside of mutation results: a refusal keeps its code and message; a bug is masked with a
// reference and logged once. Messages of graphql-js quote values, which may be secrets, and lose
// them here.
import { randomUUID } from 'node:crypto';
import { GraphQLError } from 'graphql';
import { databaseErrorCode, passingFault } from '../database/database.ts';
import { Refusal, refusals, shorten } from '../errors.ts';

/** Called once for each bug, with the reference that the caller gets. */
export type ReportBug = (error: unknown, reference: string) => void;

/** Turns any error into one that a caller may see. */
export function publicError(error: unknown, report: ReportBug): GraphQLError {
  const cause = rootCause(error);
  const located = error instanceof GraphQLError ? error : undefined;
  const refusal = cause instanceof Refusal ? cause : (passingFault(cause) ?? unusableValue(cause));
  if (refusal) return refusalError(refusal, located);
  if (located && cause instanceof GraphQLError) return requestError(cause);
  const reference = randomUUID();
  report(cause, reference);
  return refusalError(new Refusal('INTERNAL', `Something went wrong here. Reference: ${reference}`), located);
}

/**
 * Turns the error of a value that the database cannot hold, e.g. text with NUL or a time beyond its
 * calendar, into a refusal of the caller's input. Checks of inputs come first and name the place;
 * this is the net below them. Null for any other error.
 */
function unusableValue(error: unknown): Refusal | null {
  if (!unusableCodes.has(databaseErrorCode(error) ?? '')) return null;
  return new Refusal('BAD_USER_INPUT', 'A value is out of range, or holds characters that cannot be kept.');
}

/**
 * SQLSTATEs for numbers and times that are malformed or out of range, and for characters that text
 * or JSON cannot hold.
 */
const unusableCodes = new Set(['22003', '22007', '22008', '22009', '22021', '22P05']);

/** Makes a GraphQL error of a refusal. */
export function refusalError(refusal: Refusal, located?: GraphQLError): GraphQLError {
  const { hint, retryAfterSeconds, path } = refusal.details;
  return new GraphQLError(refusal.message, {
    nodes: located?.nodes,
    path: located?.path,
    extensions: {
      code: refusal.code,
      retryable: refusal.retryable,
      ...(hint === undefined ? {} : { hint }),
      ...(path === undefined ? {} : { path }),
      ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
      http: {
        status: refusal.httpStatus,
        ...(retryAfterSeconds === undefined ? {} : { headers: { 'retry-after': String(retryAfterSeconds) } }),
      },
    },
  });
}

/**
 * Rewrites an error of graphql-js or Yoga about the request itself (syntax, validation, variables):
 * it gets a code, and loses quoted values.
 */
export function requestError(error: GraphQLError): GraphQLError {
  const { code, http } = error.extensions as { code?: unknown; http?: { status?: number } };
  const hasOwnCode = typeof code === 'string' && code in refusals;
  const tooLarge = tooLargeMessages.has(error.message);
  return new GraphQLError(shorten(withoutValues(error.message)), {
    nodes: error.nodes,
    source: error.source,
    positions: error.positions,
    path: error.path,
    extensions: {
      retryable: false,
      ...error.extensions,
      ...(hasOwnCode ? {} : { code: tooLarge ? 'OPERATION_TOO_LARGE' : 'BAD_USER_INPUT' }),
      ...(hasOwnCode || code === undefined ? {} : { http: { status: http?.status ?? 400 } }),
    },
  });
}

/** Messages of graphql-js when it reached a limit of its own. */
const tooLargeMessages = new Set(['Maximum introspection depth exceeded', 'Validation aborted.']);

/** Upper bound of the errors of one answer. */
export const maxErrors = 20;

/**
 * Bounds the errors of an answer: of more than 20 it returns the first 19, and one that tells how
 * many are left out.
 */
export function atMost(errors: readonly GraphQLError[]): readonly GraphQLError[] {
  if (errors.length <= maxErrors) return errors;
  const shown = errors.slice(0, maxErrors - 1);
  // graphql-js adds this error when it stops
  const isStopped = errors.some(({ message }) => message.endsWith('Validation aborted.'));
  const rest = isStopped
    ? `Checking stopped here, after ${maxErrors} errors.`
    : `${errors.length - shown.length} more errors are left out.`;
  const { code, retryable } = shown.at(-1)?.extensions ?? {};
  const extensions = { ...(code ? { code } : {}), ...(retryable === undefined ? {} : { retryable }) };
  return [...shown, new GraphQLError(rest, { extensions })];
}

/** Removes quoted values from a message of graphql-js. Errors of `checkVariables` hold none. */
function withoutValues(message: string): string {
  if (message.startsWith('Syntax Error')) {
    return message.replace(/(BlockString|String|Int|Float|found Name) "[^]*"(?=\.|$)/, '$1');
  }
  return message
    .replace(/[,.;]? [Ff]ound:? [^]*$/, '.')
    .replace(/( value|representation): [^]*$/, '$1.')
    .replace(/^Value "[^]*" does not exist in "(\w+)" enum\./, 'The value does not exist in "$1" enum.')
    .replace(/ at value "[^]*"/, '')
    .replace(/got invalid value [^]*? at /, 'got an invalid value at ')
    .replace(/got invalid value [^]*?; /, 'got an invalid value; ');
}

/** Removes the HTTP status of an error, which has no meaning inside of a stream. */
export function withoutHttp(error: GraphQLError): GraphQLError {
  const { http: _http, ...extensions } = error.extensions;
  const { message, nodes, source, positions, path } = error;
  return new GraphQLError(message, { nodes, source, positions, path, extensions });
}

function rootCause(error: unknown): unknown {
  let cause = error;
  while (cause instanceof GraphQLError && cause.originalError) cause = cause.originalError;
  return cause;
}
