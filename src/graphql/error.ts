// Errors outside of mutation results: refusals speak with their code, bugs are masked with an id and logged once.
// graphql-js echoes what it refuses, and a value may be a secret: its messages lose their values here.
import { randomUUID } from 'node:crypto';
import { GraphQLError } from 'graphql';
import { passingFault } from '../database/database.ts';
import { Refusal } from '../errors.ts';

/** Gets each bug once, with the reference that the caller was given. */
export type ReportBug = (error: unknown, reference: string) => void;

/** What a caller may see of an error. */
export function publicError(error: unknown, report: ReportBug): GraphQLError {
  const cause = rootCause(error);
  const located = error instanceof GraphQLError ? error : undefined;
  const refusal = cause instanceof Refusal ? cause : passingFault(cause);
  if (refusal) return refusalError(refusal, located);
  if (located && cause instanceof GraphQLError) return requestError(cause);
  const reference = randomUUID();
  report(cause, reference);
  return refusalError(new Refusal('INTERNAL', `Something went wrong here. Reference: ${reference}`), located);
}

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
      http: { status: refusal.httpStatus },
    },
  });
}

/** An error of graphql-js about the request itself: syntax, validation, variables. */
export function requestError(error: GraphQLError): GraphQLError {
  return new GraphQLError(withoutValues(error.message), {
    nodes: error.nodes,
    source: error.source,
    positions: error.positions,
    path: error.path,
    extensions: { code: 'BAD_USER_INPUT', retryable: false, ...error.extensions },
  });
}

/** Our own errors of variables hold no values; those of graphql-js about literals quote them. */
function withoutValues(message: string): string {
  return message
    .replace(/(BlockString|String|Int|Float) "[^]*"(?=\.|$)/, '$1')
    .replace(
      /(, found |value: |non-integer value: |representation: ).*$/s,
      (_, lead: string) => `${lead.replace(/[:, ]+(found )?$/, '')}.`,
    )
    .replace(/got invalid value [^]*? at /, 'got an invalid value at ')
    .replace(/got invalid value [^]*?; /, 'got an invalid value; ');
}

function rootCause(error: unknown): unknown {
  let cause = error;
  while (cause instanceof GraphQLError && cause.originalError) cause = cause.originalError;
  return cause;
}
