// Errors over plain HTTP: refusals as `application/problem+json` (RFC 9457), with the HTTP status
// of their code. Beside type, title, status and detail, a problem has `code` and `retryable`, and
// the details of the refusal: `hint`, `path`, `issues`, `violations`, `differing_paths`,
// `existing_id`, `required_scope`, `current_state`, `retry_after_seconds`.
import { type ServerResponse, STATUS_CODES } from 'node:http';
import { docsUrl, Refusal, type RefusalCode, refusals } from '../../errors.ts';
import { publicError, type ReportBug } from '../../graphql/error.ts';
import { snakeKeys, specPathOf } from '../../spec/input.ts';
import { endUnread } from './answer.ts';
import type { Refused } from './guard.ts';

type Problem = { status: number; code: RefusalCode; retryable: boolean } & Record<string, unknown>;

/** Answers with a problem. An error that is no refusal is reported once and masked. */
export function sendProblem(
  response: ServerResponse,
  error: unknown,
  { report, publicUrl }: { report: ReportBug; publicUrl: string | null },
): void {
  const refusal = error instanceof Refusal ? error : toRefusal(error, report);
  send(response, problemOf(refusal, publicUrl));
}

/** Answers a request that the guard refused. */
export function refuseRest(response: ServerResponse, { status, message }: Refused, publicUrl: string | null): void {
  const code = codes[status] ?? 'BAD_USER_INPUT';
  const type = docsUrl(code, publicUrl);
  send(response, { type, ...heading(status, message), code, retryable: refusals[code].retryable });
}

const codes: Record<number, RefusalCode> = { 403: 'PERMISSION_DENIED', 404: 'NOT_FOUND', 503: 'UNAVAILABLE' };

function toRefusal(error: unknown, report: ReportBug): Refusal {
  const { message, extensions } = publicError(error, report);
  const { code, hint, retryAfterSeconds } = extensions;
  return new Refusal(isCode(code) ? code : 'INTERNAL', message, {
    hint: typeof hint === 'string' ? hint : undefined,
    retryAfterSeconds: typeof retryAfterSeconds === 'number' ? retryAfterSeconds : undefined,
  });
}

function isCode(code: unknown): code is RefusalCode {
  return typeof code === 'string' && code in refusals;
}

function problemOf({ code, message, httpStatus, retryable, details }: Refusal, publicUrl: string | null): Problem {
  const { path, issues, violations, ...others } = details;
  return {
    type: docsUrl(code, publicUrl),
    ...heading(httpStatus, message),
    code,
    retryable,
    ...snakeKeys({
      ...others,
      path: path && restPath(path),
      issues: issues?.map(({ specPath, path: graphqlPath, ...issue }) => ({
        ...issue,
        path: specPath ?? restPath(graphqlPath),
      })),
      violations: violations?.map(({ rule, ...violation }) => ({ ...violation, rule: snakeKeys(rule) })),
    }),
  };
}

function heading(status: number, detail: string) {
  return { title: STATUS_CODES[status] ?? 'Refused', status, detail };
}

/**
 * Path of a value in the REST body. GraphQL paths begin with `input` and `spec`, which that body
 * does not have; the idempotency key is a header.
 */
function restPath(path: readonly string[]): string {
  const inBody = path.filter((key, index) => !(index < 2 && (key === 'input' || key === 'spec')));
  return inBody[0] === 'idempotencyKey' ? 'Idempotency-Key' : specPathOf(inBody);
}

function send(response: ServerResponse, problem: Problem): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  endUnread(response);
  if (problem.status === 401) response.setHeader('www-authenticate', 'Bearer');
  const seconds = problem['retry_after_seconds'];
  if (typeof seconds === 'number') response.setHeader('retry-after', String(Math.ceil(seconds)));
  response.writeHead(problem.status, { 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
  response.end(JSON.stringify(problem));
}
