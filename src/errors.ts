// Refusal: the closed list of reasons we may answer instead of a result. Whoever throws anything else has found a bug,
// which is logged once and masked. A code's HTTP class and whether a retry may help stand here and nowhere else.

type Explained = {
  /** HTTP class. */
  httpStatus: number;
  /** Whether the same request may succeed later. */
  retryable: boolean;
  /** What happened, and what to do about it, in Markdown of code spans only. */
  meaning: string;
  action: string;
};

/** What is known of each code. Page and table of the codes are made from it. */
export const refusals = {
  // Typed errors of mutations (`UserErrorCode` in the schema).
  INVALID_INPUT: {
    httpStatus: 422,
    retryable: false,
    meaning: 'Inputs are malformed, out of range or not known. All problems are named at once.',
    action: 'Correct what `issues` names: each has its path, a code and often a hint.',
  },
  NOT_FOUND: {
    httpStatus: 404,
    retryable: false,
    meaning: 'The object does not exist, or the token may not see it: both look the same on purpose.',
    action: 'Check the id, and that the token belongs to the object’s project.',
  },
  PERMISSION_DENIED: {
    httpStatus: 403,
    retryable: false,
    meaning: 'The token can see the object but lacks the scope for this; or a page of another origin asked.',
    action:
      'Use a token with the scope in `requiredScope`; for a browser app allow its origin in `ASTRAML_CORS_ORIGINS`.',
  },
  INVALID_STATE: {
    httpStatus: 409,
    retryable: false,
    meaning: 'The object is in a state in which this cannot be done, such as a job that has ended.',
    action: 'Read the object again and decide anew; `currentState` says how it stands.',
  },
  IDEMPOTENCY_CONFLICT: {
    httpStatus: 409,
    retryable: false,
    meaning: 'The idempotency key was used before with another input.',
    action:
      'Send the first input again to get its object, or take a new key for a new one; `differingPaths` says what differs.',
  },
  ALREADY_EXISTS: {
    httpStatus: 409,
    retryable: false,
    meaning: 'An object with this name or id exists already.',
    action: 'Use the one that exists, or take another name.',
  },
  POLICY_VIOLATION: {
    httpStatus: 403,
    retryable: false,
    meaning: 'A policy of the project forbids a value. All violations are named at once; no value is changed silently.',
    action: 'Keep to the limits in `violations`, or ask an administrator of the project to change the policy.',
  },
  // Errors of the request as a whole (`extensions.code`).
  UNAUTHENTICATED: {
    httpStatus: 401,
    retryable: false,
    meaning: 'There is no token, or it is wrong, expired or revoked.',
    action: 'Send `Authorization: Bearer <token>` with a valid token; sign in again.',
  },
  BAD_USER_INPUT: {
    httpStatus: 400,
    retryable: false,
    meaning:
      'The request itself is wrong: syntax, unknown fields, variables of another type, an unsupported method or body.',
    action: 'Correct the request; the message says what and where.',
  },
  CURSOR_INVALID: {
    httpStatus: 400,
    retryable: false,
    meaning: 'The cursor is none of ours, or was changed on its way.',
    action: 'Start without `after`, and keep cursors exactly as they came.',
  },
  CURSOR_WRONG_STREAM: {
    httpStatus: 400,
    retryable: false,
    meaning: 'The cursor belongs to another job, stream or list.',
    action: 'Use it where it came from, or start this one without `after`.',
  },
  OPERATION_TOO_LARGE: {
    httpStatus: 400,
    retryable: false,
    meaning: 'The operation is too long, deep or wide, or may return too many objects.',
    action: 'Ask for less: smaller pages (`first`), fewer fields or aliases, several operations.',
  },
  IN_PROGRESS: {
    httpStatus: 409,
    retryable: true,
    meaning: 'The first request with this idempotency key is still under way.',
    action: 'Send the same request with the same key again after `retryAfterSeconds`.',
  },
  RATE_LIMITED: {
    httpStatus: 429,
    retryable: true,
    meaning: 'The token has asked for more than its share of this time, or has as many subscriptions open as it may.',
    action:
      'Wait for `retryAfterSeconds`; then ask less often, or for smaller pages, or end subscriptions. Subscribe rather than poll.',
  },
  UNAVAILABLE: {
    httpStatus: 503,
    retryable: true,
    meaning: 'Something that the gateway stands on is away, such as its database; or the gateway is stopping.',
    action: 'Try again with growing pauses. Send mutations with the idempotency key of the first try.',
  },
  OVERLOADED: {
    httpStatus: 503,
    retryable: true,
    meaning:
      'The gateway answers as many operations, or holds as many connections, as it may at once; this one was not begun.',
    action: 'Try again after `retryAfterSeconds`, with growing pauses, or at another gateway.',
  },
  TIMEOUT: {
    httpStatus: 504,
    retryable: true,
    meaning: 'The operation took longer than it may. What it began to change may have been done.',
    action:
      'Ask for less, or try again later. Send a mutation with the same idempotency key, which never makes a second object.',
  },
  INTERNAL: {
    httpStatus: 500,
    retryable: false,
    meaning: 'A bug of ours, or something that nobody foresaw. It was logged under the reference in the message.',
    action:
      'Report the reference. Before you send a mutation again, look whether it was done, or use its idempotency key.',
  },
} as const satisfies Record<string, Explained>;

export type RefusalCode = keyof typeof refusals;

/** Page of the gateway that explains a code. */
export function docsUrl(code: RefusalCode, publicUrl: string | null): string {
  return `${publicUrl ?? ''}/errors/${code}`;
}

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
  /** What a violation does: refuse the job, or accept it with a warning. */
  enforcement: 'DENY' | 'WARN';
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
    super(shorten(message));
    this.name = 'Refusal';
    this.code = code;
    this.details = shortened(details);
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

/** Problems of one input that are named; a check that has found one more may stop. */
export const maxIssues = 100;

/** The problems of an input, at most the first 100; `issues` must not be empty. */
export function invalid(issues: Issue[]): Refusal {
  const [first] = issues;
  if (!first) throw new Error('invalid() needs an issue');
  const count =
    issues.length > maxIssues ? `Checking stopped after ${maxIssues} problems` : `${issues.length} problems`;
  const message = issues.length === 1 ? first.message : `${count}, the first: ${first.message}`;
  return new Refusal('INVALID_INPUT', message, {
    issues: issues.slice(0, maxIssues),
    path: first.path,
    hint: first.hint,
  });
}

const maxQuoted = 200;
const maxMessage = 4_000;
const longWord = new RegExp(`\\S{${maxQuoted + 1},}`, 'g');
const longQuotation = new RegExp(`"[^"]{${maxQuoted + 1},}"`, 'g');

/**
 * The one place that bounds what an error repeats of its cause, on every door: a word and a quotation are cut at 200
 * characters, the whole at 4,000. Sentences of ours pass as they are.
 */
export function shorten(text: string): string {
  if (text.length <= maxQuoted) return text;
  const cut = text.length > maxMessage ? `${text.slice(0, maxMessage)}…` : text;
  return cut
    .replace(longQuotation, (quotation) => `"${quotation.slice(1, maxQuoted + 1)}…"`)
    .replace(longWord, (word) => `${word.slice(0, maxQuoted)}…`);
}

function shortened(details: RefusalDetails): RefusalDetails {
  const { path, hint, issues, differingPaths } = details;
  return {
    ...details,
    ...(path && { path: path.map(shorten) }),
    ...(hint !== undefined && { hint: shorten(hint) }),
    ...(issues && { issues: issues.map(shortIssue) }),
    ...(differingPaths && { differingPaths: differingPaths.slice(0, maxIssues).map(shorten) }),
  };
}

function shortIssue({ path, message, hint, specPath, ...issue }: Issue): Issue {
  return {
    ...issue,
    path: path.map(shorten),
    message: shorten(message),
    ...(hint !== undefined && { hint: shorten(hint) }),
    ...(specPath !== undefined && { specPath: shorten(specPath) }),
  };
}

/** Text of a caller inside of our sentence: short, on one line, without control characters. */
export function quote(text: string): string {
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
  // eslint-disable-next-line no-control-regex
  return `"${shown.replace(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, '�')}"`;
}
