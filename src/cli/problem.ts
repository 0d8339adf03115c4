// Typed errors and warnings in the answers of the API. An error becomes the failure that ends the
// command; warnings are printed to stderr.
import type { Cli } from './cli.ts';
import { Refused } from './failure.ts';
import { cleanText } from './text.ts';

/** GraphQL fragment for operations that spread `...Problem`. */
export const problemFragment = `fragment Problem on UserError {
  __typename code message hint
  ... on ValidationError { issues { code message hint path specPath } }
  ... on PolicyViolationError { violations { path message } }
  ... on IdempotencyConflictError { differingPaths existingJob { number project { id } } }
}`;

export type Problem = {
  __typename: string;
  code: string;
  message: string;
  hint: string | null;
  issues?: { message: string; hint: string | null; path: string[]; specPath: string | null }[];
  violations?: { path: string; message: string }[];
  differingPaths?: string[];
  existingJob?: { number: number; project: { id: string } } | null;
};

export function refusedBy(problem: Problem): Refused {
  const { code, message, hint, issues = [], violations = [], differingPaths = [], existingJob } = problem;
  const listed = issues.map(({ specPath, path, ...issue }) => ({
    message: issue.message,
    hint: issue.hint ?? undefined,
    specPath: specPath ?? path.join('.'),
  }));
  const forbidden = violations.map((violation, index) => ({
    message: violation.message,
    // the hint of the gateway is about the first violation
    hint: index === 0 ? (hint ?? undefined) : undefined,
    specPath: violation.path,
  }));
  const differing = differingPaths.map((specPath) => ({ message: `${specPath} differs from the first submission.` }));
  const known = existingJob ? `The key belongs to ${existingJob.project.id}/${existingJob.number}.` : null;
  return new Refused(
    code,
    message,
    [...listed, ...forbidden, ...differing],
    [hint, known].filter(Boolean).join(' ') || null,
  );
}

export type Warning = { code: string; message: string };

export function printWarnings(cli: Cli, warnings: readonly Pick<Warning, 'message'>[]): void {
  for (const { message } of warnings) cli.out.warn(`warning: ${cleanText(message)}`);
}
