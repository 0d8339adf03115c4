// Refusal: the closed list of reasons we may answer instead of a result. Whoever throws anything else has found a bug,
// which is logged once and masked. A code's HTTP class and whether a retry may help stand here and nowhere else.

/** HTTP class of each code, and whether the same request may succeed later. */
export const refusals = {
  // Typed errors of mutations (`UserErrorCode` in the schema).
  INVALID_INPUT: { httpStatus: 422, retryable: false },
  NOT_FOUND: { httpStatus: 404, retryable: false },
  PERMISSION_DENIED: { httpStatus: 403, retryable: false },
  INVALID_STATE: { httpStatus: 409, retryable: false },
  IDEMPOTENCY_CONFLICT: { httpStatus: 409, retryable: false },
  ALREADY_EXISTS: { httpStatus: 409, retryable: false },
  POLICY_VIOLATION: { httpStatus: 403, retryable: false },
  // Errors of the request as a whole (`extensions.code`).
  UNAUTHENTICATED: { httpStatus: 401, retryable: false },
  BAD_USER_INPUT: { httpStatus: 400, retryable: false },
  CURSOR_INVALID: { httpStatus: 400, retryable: false },
  CURSOR_WRONG_STREAM: { httpStatus: 400, retryable: false },
  OPERATION_TOO_LARGE: { httpStatus: 400, retryable: false },
  IN_PROGRESS: { httpStatus: 409, retryable: true },
  RATE_LIMITED: { httpStatus: 429, retryable: true },
  UNAVAILABLE: { httpStatus: 503, retryable: true },
  OVERLOADED: { httpStatus: 503, retryable: true },
  TIMEOUT: { httpStatus: 504, retryable: true },
  INTERNAL: { httpStatus: 500, retryable: false },
} as const;

export type RefusalCode = keyof typeof refusals;

/** One problem of an input. `path` is where the caller sent it, `specPath` the same place in the job spec file. */
export type Issue = {
  code:
    | 'REQUIRED'
    | 'UNKNOWN_FIELD'
    | 'WRONG_TYPE'
    | 'OUT_OF_RANGE'
    | 'NOT_ALLOWED'
    | 'MALFORMED'
    | 'SECRET_LITERAL'
    | 'UNKNOWN_SECRET'
    | 'UNKNOWN_VERSION';
  path: string[];
  message: string;
  hint?: string | undefined;
  specPath?: string | undefined;
};

/** A rule of a project's policy about one path of the job spec: a default, a limit, or both. */
export type PolicyRule = {
  path: string;
  /** Tells a default of null from none. */
  hasDefault: boolean;
  default: unknown;
  min: number | null;
  max: number | null;
  /** Values allowed; null for any. */
  allowed: unknown[] | null;
  /** The request must set the path itself. */
  required: boolean;
  /** What is said when the rule is violated; a generated sentence when null. */
  message: string | null;
};

/** What a job spec has against a rule. `value` is the effective one. */
export type PolicyViolation = {
  kind: 'MIN' | 'MAX' | 'ALLOWED' | 'REQUIRED';
  path: string;
  value: unknown;
  message: string;
  rule: PolicyRule;
};

export type RefusalDetails = {
  /** Path of the offending input, e.g. `['input', 'id']`. */
  path?: string[] | undefined;
  /** What to do next. */
  hint?: string | undefined;
  retryAfterSeconds?: number | undefined;
  issues?: Issue[] | undefined;
  violations?: PolicyViolation[] | undefined;
  resourceType?: string | undefined;
  requiredScope?: string | undefined;
  currentState?: string | undefined;
  existingId?: string | undefined;
  differingPaths?: string[] | undefined;
};

/** A reason the caller can act on. `message` is one sentence for people and holds no value that may be a secret. */
export class Refusal extends Error {
  readonly code: RefusalCode;
  readonly details: RefusalDetails;

  constructor(code: RefusalCode, message: string, details: RefusalDetails = {}) {
    super(message);
    this.name = 'Refusal';
    this.code = code;
    this.details = details;
  }

  get httpStatus(): number {
    return refusals[this.code].httpStatus;
  }

  get retryable(): boolean {
    return refusals[this.code].retryable;
  }
}

/** Not found and not allowed to see look the same, so that nobody can probe for what others have. */
export function notFound(resourceType: string, id: string, path?: string[], hint?: string): Refusal {
  return new Refusal('NOT_FOUND', `${resourceType} ${quote(id)} does not exist, or you may not see it.`, {
    resourceType,
    path,
    hint,
  });
}

/** All problems of an input at once; `issues` must not be empty. */
export function invalid(issues: Issue[]): Refusal {
  const [first] = issues;
  if (!first) throw new Error('invalid() needs an issue');
  const message = issues.length === 1 ? first.message : `${issues.length} problems, the first: ${first.message}`;
  return new Refusal('INVALID_INPUT', message, { issues, path: first.path, hint: first.hint });
}

/** Text of a caller inside of our sentence: short, on one line, without control characters. */
export function quote(text: string): string {
  // eslint-disable-next-line no-control-regex
  const clean = text.replace(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, '�');
  return `"${clean.length > 80 ? `${clean.slice(0, 80)}…` : clean}"`;
}

/** "Did you mean …?": the closest known name, when it is close enough to be a slip of the hand. */
export function closest(name: string, known: readonly string[]): string | undefined {
  const plain = (text: string) => text.toLowerCase().replace(/[^a-z0-9]/g, '');
  const wanted = plain(name).slice(0, 64);
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(wanted.length / 3)) + 0.5;
  for (const candidate of known) {
    const distance = editDistance(wanted, plain(candidate));
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Insertions, deletions, substitutions and swaps of neighbours from one text to the other. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substituted = (last[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      let best = Math.min(substituted, (last[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1);
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) best = Math.min(best, (beforeLast[column - 2] ?? 0) + 1);
      current[column] = best;
    }
    [beforeLast, last] = [last, current];
  }
  return last[b.length] ?? 0;
}
