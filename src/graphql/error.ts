// Errors outside of mutation results: refusals speak with their code, bugs are masked with an id and logged once.
// graphql-js echoes what it refuses, and a value may be a secret: its messages lose their values here.
import { randomUUID } from 'node:crypto';
import { GraphQLError } from 'graphql';
import { databaseErrorCode, passingFault } from '../database/database.ts';
import { Refusal, refusals, shorten } from '../errors.ts';

/** Gets each bug once, with the reference that the caller was given. */
export type ReportBug = (error: unknown, reference: string) => void;

/** What a caller may see of an error. */
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
 * A value that the database cannot hold, such as text with NUL or a time beyond its calendar, is the caller's: the net
 * below the checks of inputs, which name the place. Null for any other error.
 */
function unusableValue(error: unknown): Refusal | null {
  if (!unusableCodes.has(databaseErrorCode(error) ?? '')) return null;
  return new Refusal('BAD_USER_INPUT', 'A value is out of range, or holds characters that cannot be kept.');
}

/** Numbers and times out of range or malformed, and characters that have no place in text or JSON. */
const unusableCodes = new Set(['22003', '22007', '22008', '22009', '22021', '22P05']);

/** A refusal as an error of a request. */
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

/** An error of graphql-js or Yoga about the request itself: syntax, validation, variables. */
export function requestError(error: GraphQLError): GraphQLError {
  const { code, http } = error.extensions as { code?: unknown; http?: { status?: number } };
  const isOurs = typeof code === 'string' && code in refusals;
  const tooLarge = tooLargeMessages.has(error.message);
  return new GraphQLError(shorten(withoutValues(error.message)), {
    nodes: error.nodes,
    source: error.source,
    positions: error.positions,
    path: error.path,
    extensions: {
      retryable: false,
      ...error.extensions,
      ...(isOurs ? {} : { code: tooLarge ? 'OPERATION_TOO_LARGE' : 'BAD_USER_INPUT' }),
      ...(isOurs || code === undefined ? {} : { http: { status: http?.status ?? 400 } }),
    },
  });
}

/** What graphql-js says when it has met a limit of its own. */
const tooLargeMessages = new Set(['Maximum introspection depth exceeded', 'Validation aborted.']);

/** Most errors of one answer. */
export const maxErrors = 20;

/** The errors that an answer carries: of more than 20 the first 19, and one that says how many are left out. */
export function atMost(errors: readonly GraphQLError[]): readonly GraphQLError[] {
  if (errors.length <= maxErrors) return errors;
  const shown = errors.slice(0, maxErrors - 1);
  const isStopped = errors.some(({ message }) => message.endsWith('Validation aborted.')); // graphql-js found one more;
  const rest = isStopped
    ? `Checking stopped here, after ${maxErrors} errors.`
    : `${errors.length - shown.length} more errors are left out.`;
  const { code, retryable } = shown.at(-1)?.extensions ?? {};
  const extensions = { ...(code ? { code } : {}), ...(retryable === undefined ? {} : { retryable }) };
  return [...shown, new GraphQLError(rest, { extensions })];
}

/** Our own errors of variables hold no values; those of graphql-js about literals quote them. */
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

/** Without the HTTP status, which means nothing in the middle of a stream. */
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
