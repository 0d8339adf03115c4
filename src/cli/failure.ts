// Errors of commands: their exit codes and their texts. Exit codes are a promise to scripts and are
// defined only here.
import type { ApiError } from '../client/client.ts';
import { type Issue, shorten } from '../errors.ts';
import { cleanText } from './text.ts';

export const exitCodes = {
  done: 0,
  unexpected: 1,
  usage: 2,
  notFound: 3,
  notAllowed: 4,
  unreachable: 5,
  refused: 6,
  rateLimited: 7,
  /** `wait --timeout` ran out; the job goes on. */
  waitedTooLong: 101,
  detached: 130,
} as const;

/** Exit code for the final state of a job, for commands that mirror it, e.g. `wait`. */
export const exitCodeOfState: Record<string, number> = { SUCCEEDED: 0, FAILED: 100, CANCELLED: 103, TIMED_OUT: 104 };

/** An expected failure: its message says what happened, its hint what to do. */
export class Failure extends Error {
  readonly exitCode: number;
  readonly hint: string | null;

  constructor(exitCode: number, message: string, hint: string | null = null) {
    super(shorten(message));
    this.name = 'Failure';
    this.exitCode = exitCode;
    this.hint = hint === null ? null : shorten(hint);
  }
}

/** Makes the failure of a mistake on the command line. */
export function usage(message: string, hint: string | null = null): Failure {
  return new Failure(exitCodes.usage, message, hint);
}

/** Runs each task, and throws the usage mistakes of all of them as one failure. */
export function allUsage(tasks: readonly (() => void)[]): void {
  const failures: Failure[] = [];
  for (const task of tasks) {
    try {
      task();
    } catch (error) {
      if (!(error instanceof Failure) || error.exitCode !== exitCodes.usage) throw error;
      failures.push(error);
    }
  }
  const [first, ...others] = failures;
  if (!first) return;
  if (others.length === 0) throw first;
  const lines = failures.map(({ message, hint }) => `  ${message}${hint ? ` ${hint}` : ''}`);
  throw usage(`The command line has ${failures.length} problems:\n${lines.join('\n')}`);
}

/** An input that the gateway or a check before it refused, with every problem. */
export class Refused extends Failure {
  readonly issues: readonly Pick<Issue, 'message' | 'hint' | 'specPath'>[];

  constructor(
    code: string,
    message: string,
    issues: readonly Pick<Issue, 'message' | 'hint' | 'specPath'>[],
    hint: string | null,
  ) {
    super(exitCodeOf(code), message, hint);
    this.name = 'Refused';
    this.issues = issues;
  }
}

/** Ctrl-C while a job is followed: the command ends, the job goes on. */
export class Detached extends Failure {
  constructor(message: string) {
    super(exitCodes.detached, message);
    this.name = 'Detached';
  }
}

/** Returns the exit code for an error code of the API. */
export function exitCodeOf(code: string): number {
  switch (code) {
    case 'NOT_FOUND':
      return exitCodes.notFound;
    case 'UNAUTHENTICATED':
    case 'PERMISSION_DENIED':
      return exitCodes.notAllowed;
    case 'UNREACHABLE':
    case 'TIMEOUT':
      return exitCodes.unreachable;
    case 'RATE_LIMITED':
      return exitCodes.rateLimited;
    case 'CURSOR_INVALID':
    case 'CURSOR_WRONG_STREAM':
      return exitCodes.usage;
    case 'INVALID_INPUT':
    case 'BAD_USER_INPUT':
    case 'INVALID_STATE':
    case 'IDEMPOTENCY_CONFLICT':
    case 'ALREADY_EXISTS':
    case 'POLICY_VIOLATION':
    case 'IN_PROGRESS':
    case 'OPERATION_TOO_LARGE':
      return exitCodes.refused;
    default:
      return exitCodes.unexpected;
  }
}

/** Returns the exit code of an error and the text to print to stderr. */
export function explain(error: unknown, debug: boolean): { exitCode: number; text: string } {
  const { exitCode, lines } = describe(error);
  if (debug && error instanceof Error) lines.push(stackOf(error));
  // Each line is cleaned here, since paths, names and messages of a gateway may hold control
  // sequences.
  return { exitCode, text: lines.map(cleanText).join('\n') };
}

function describe(error: unknown): { exitCode: number; lines: string[] } {
  if (error instanceof Detached) return { exitCode: error.exitCode, lines: [error.message] };
  if (error instanceof Refused) {
    const { exitCode, issues, hint } = error;
    const [only, ...others] = issues;
    if (only && others.length === 0 && only.message === error.message) {
      const place = only.specPath && !only.message.startsWith(only.specPath) ? `${only.specPath}: ` : '';
      return { exitCode, lines: [`error: ${place + only.message}`, ...hintLine(only.hint ?? null)] };
    }
    const isShown = issues.some((issue) => issue.hint === hint);
    const lines = [`error: ${error.message}`, ...issues.flatMap(issueLines), ...hintLine(isShown ? null : hint)];
    return { exitCode, lines };
  }
  if (error instanceof Failure) {
    return { exitCode: error.exitCode, lines: [`error: ${error.message}`, ...hintLine(error.hint)] };
  }
  if (isApiError(error)) {
    const hint =
      error.hint ?? (error.code === 'UNAUTHENTICATED' ? 'Set ASTRAML_TOKEN to a token of this gateway.' : null);
    return { exitCode: exitCodeOf(error.code), lines: [`error: ${error.message}`, ...hintLine(hint)] };
  }
  const message = error instanceof Error ? error.message : String(error);
  // Compared by name, because an import of the classes would load their rooms.
  if (error instanceof Error && (error.name === 'ConfigError' || error.name === 'CannotStart')) {
    return { exitCode: exitCodes.usage, lines: [`error: ${message}`] };
  }
  return {
    exitCode: exitCodes.unexpected,
    lines: [`error: unexpected: ${message}`, ...hintLine('Run it again with --debug and report what it prints.')],
  };
}

/** Compared by name, because an import of the class loads GraphQL, which takes 150 ms. */
function isApiError(error: unknown): error is ApiError {
  return error instanceof Error && error.name === 'ApiError';
}

/** Returns the lines of one problem of a spec: its path and message, then its hint. */
export function issueLines({ message, hint, specPath }: Pick<Issue, 'message' | 'hint' | 'specPath'>): string[] {
  const place = specPath && !message.startsWith(specPath) ? `${specPath}: ` : '';
  return [`  ${place + message}`, ...(hint ? [`    hint  ${hint}`] : [])];
}

function hintLine(hint: string | null): string[] {
  return hint ? [`  hint  ${hint}`] : [];
}

function stackOf(error: Error): string {
  const cause = error.cause instanceof Error ? `\ncaused by ${stackOf(error.cause)}` : '';
  return `${error.stack ?? error.message}${cause}`;
}
