// What went wrong, as an exit code and as text. The exit codes are a promise to scripts: they stand here only.
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

/** Exit code of the end of a job, for commands that mirror it. */
export const exitCodeOfState: Record<string, number> = { SUCCEEDED: 0, FAILED: 100, CANCELLED: 103, TIMED_OUT: 104 };

/** A failure that we foresaw: its message says what happened, its hint what to do. */
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

/** A mistake on the command line. */
export function usage(message: string, hint: string | null = null): Failure {
  return new Failure(exitCodes.usage, message, hint);
}

/** Does each task, and throws what was wrong with the command line in them as one mistake. */
export function allUsage(tasks: readonly (() => void)[]): void {
  const found: Failure[] = [];
  for (const task of tasks) {
    try {
      task();
    } catch (error) {
      if (!(error instanceof Failure) || error.exitCode !== exitCodes.usage) throw error;
      found.push(error);
    }
  }
  const [first, ...others] = found;
  if (!first) return;
  if (others.length === 0) throw first;
  const lines = found.map(({ message, hint }) => `  ${message}${hint ? ` ${hint}` : ''}`);
  throw usage(`The command line has ${found.length} problems:\n${lines.join('\n')}`);
}

/** An input that was refused, here or by the gateway, with every problem of it. */
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

/** Ctrl-C while following: the job goes on. */
export class Detached extends Failure {
  constructor(message: string) {
    super(exitCodes.detached, message);
    this.name = 'Detached';
  }
}

/** Exit code of an error code of the API. */
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

/** Exit code of an error, and what to print to stderr for it. */
export function explain(error: unknown, debug: boolean): { exitCode: number; text: string } {
  const { exitCode, lines } = describe(error);
  if (debug && error instanceof Error) lines.push(stackOf(error));
  // Here for every error, whoever made it: paths, names and what a gateway says may hold control sequences.
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
  // Known by name: their room is loaded only by the command that needs it.
  if (error instanceof Error && (error.name === 'ConfigError' || error.name === 'CannotStart')) {
    return { exitCode: exitCodes.usage, lines: [`error: ${message}`] };
  }
  return {
    exitCode: exitCodes.unexpected,
    lines: [`error: unexpected: ${message}`, ...hintLine('Run it again with --debug and report what it prints.')],
  };
}

/** By its name: the class comes with all of GraphQL, 150 ms of a start. */
function isApiError(error: unknown): error is ApiError {
  return error instanceof Error && error.name === 'ApiError';
}

/** One problem of a spec: its place, what is wrong, and under it what to do. */
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
