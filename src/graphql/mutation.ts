// Mutations: a resolver returns its payload or throws a Refusal, which becomes the typed error of the result union.
// A refusal that the union does not name (e.g. UNAUTHENTICATED) becomes an error of the request.
import type { InputObjectRef, ObjectRef } from '@pothos/core';
import { tokenScopes } from '../actor.ts';
import { docsUrl, type Issue, Refusal } from '../errors.ts';
import { builder, type Context, type Types } from './builder.ts';

export const TokenScopeEnum = builder.enumType('TokenScope', {
  description: 'Scope of an access token.',
  values: {
    READ: { description: 'Read everything in the project except secret values (which nobody can read).' },
    WRITE: { description: 'Submit, cancel and retry jobs; manage schedules. Includes `READ`.' },
    ADMIN: { description: 'Manage policies, secrets, tokens and runners. Includes `WRITE`.' },
    RUNNER: { description: 'Claim and run jobs; given to runners only.' },
  } satisfies Record<(typeof tokenScopes)[number], { description: string }>,
});

const UserErrorCode = builder.enumType('UserErrorCode', {
  description:
    'Machine-readable codes of `UserError`. New values may be added: treat an unknown code as `INVALID_INPUT`.',
  values: {
    INVALID_INPUT: { description: 'One or more inputs are malformed or out of range.' },
    NOT_FOUND: { description: 'The referenced object does not exist, or the caller may not see it.' },
    PERMISSION_DENIED: { description: 'The caller can see the object but lacks the scope for this action.' },
    INVALID_STATE: { description: 'The object is in a state that does not allow this action.' },
    IDEMPOTENCY_CONFLICT: { description: 'The idempotency key was used before with a different input.' },
    ALREADY_EXISTS: { description: 'An object with this name already exists.' },
    POLICY_VIOLATION: { description: 'A project policy forbids the request.' },
  },
});
type TypedCode = typeof UserErrorCode.$inferType;

export const ValidationCode = builder.enumType('ValidationCode', {
  description: 'What is wrong with an input.',
  values: {
    REQUIRED: { description: 'It must be given.' },
    UNKNOWN_FIELD: { description: 'No such field.' },
    WRONG_TYPE: { description: 'Another type is expected.' },
    OUT_OF_RANGE: { description: 'Too small, too large, too long or too many.' },
    NOT_ALLOWED: { description: 'Not one of the values that are known.' },
    MALFORMED: { description: 'Text that does not follow its grammar: a cron expression, a URL, a time zone.' },
    SECRET_LITERAL: { description: 'A literal that looks like a credential.' },
    UNKNOWN_SECRET: { description: 'No secret with this name in the project.' },
    UNKNOWN_VERSION: { description: 'No such version of the defaults.' },
  } satisfies Record<Issue['code'], { description: string }>,
});

/** A refusal as plain data: an Error that a resolver returns would count as thrown. */
export type UserErrorData = Pick<Refusal, 'code' | 'message' | 'details' | 'httpStatus' | 'retryable'>;

export function toUserError({ code, message, details, httpStatus, retryable }: Refusal): UserErrorData {
  return { code, message, details, httpStatus, retryable };
}

export const UserError = builder.interfaceRef<UserErrorData>('UserError').implement({
  description: `An expected failure of a mutation. Every error in every mutation result implements this interface, so
\`... on UserError { code message path hint }\` always works, also for error types added later.`,
  resolveType: (refusal) => typeNames[refusal.code as TypedCode],
  fields: (t) => ({
    code: t.field({
      type: UserErrorCode,
      description: 'Stable machine-readable code.',
      resolve: (refusal) => refusal.code as TypedCode,
    }),
    message: t.exposeString('message', { description: 'One sentence for people.' }),
    path: t.stringList({
      nullable: true,
      description:
        'Path of the offending input, e.g. `["input", "hyperparams", "lr"]`; null when no single input is at fault.',
      resolve: (refusal) => refusal.details.path,
    }),
    hint: t.string({
      nullable: true,
      description: 'What to do next, e.g. `Did you mean "batch_size"?`; null when there is nothing useful to say.',
      resolve: (refusal) => refusal.details.hint,
    }),
    docsUrl: t.field({
      type: 'URI',
      nullable: true,
      description: 'Page that explains this code.',
      resolve: (refusal, _, { config }) => docsUrl(refusal.code, config.publicUrl),
    }),
    httpStatus: t.exposeInt('httpStatus', { description: 'HTTP class of the refusal, e.g. 409.' }),
    retryable: t.exposeBoolean('retryable', { description: 'Whether the same request may succeed later.' }),
    retryAfterSeconds: t.int({
      nullable: true,
      description: 'Seconds to wait before a retry; null when a retry is useless or may come at once.',
      resolve: (refusal) => refusal.details.retryAfterSeconds,
    }),
  }),
});

const ValidationIssue = builder.objectRef<Issue>('ValidationIssue').implement({
  description: 'One problem of an input.',
  fields: (t) => ({
    path: t.exposeStringList('path', { description: 'Path of the input.' }),
    message: t.exposeString('message', { description: 'One sentence for people.' }),
    hint: t.exposeString('hint', { nullable: true, description: 'What to do next.' }),
    code: t.expose('code', { type: ValidationCode, description: 'Machine-readable code.' }),
    specPath: t.expose('specPath', {
      type: 'SpecPath',
      nullable: true,
      description: 'The same place in the spec file; null outside the spec.',
    }),
  }),
});

const typeNames: Record<TypedCode, string> = {
  INVALID_INPUT: 'ValidationError',
  NOT_FOUND: 'NotFoundError',
  PERMISSION_DENIED: 'PermissionError',
  INVALID_STATE: 'InvalidStateError',
  IDEMPOTENCY_CONFLICT: 'IdempotencyConflictError',
  ALREADY_EXISTS: 'AlreadyExistsError',
  POLICY_VIOLATION: 'PolicyViolationError',
};

export const ValidationError = errorType(
  'ValidationError',
  'Inputs are malformed or out of range. All problems are reported at once.',
);
builder.objectField(ValidationError, 'issues', (t) =>
  t.field({
    type: [ValidationIssue],
    description: 'All problems.',
    resolve: (refusal) => refusal.details.issues ?? [],
  }),
);

export const NotFoundError = errorType(
  'NotFoundError',
  'The referenced object does not exist, or the caller may not see it.',
);
builder.objectField(NotFoundError, 'resourceType', (t) =>
  t.string({
    description: 'Type of the object, e.g. `Project`.',
    resolve: (refusal) => refusal.details.resourceType ?? 'Object',
  }),
);

export const PermissionError = errorType('PermissionError', 'The caller lacks a scope.');
builder.objectField(PermissionError, 'requiredScope', (t) =>
  t.field({
    type: TokenScopeEnum,
    description: 'Scope that is missing.',
    resolve: (refusal) => (refusal.details.requiredScope ?? 'READ') as typeof TokenScopeEnum.$inferType,
  }),
);

export const InvalidStateError = errorType(
  'InvalidStateError',
  'The object is in a state that does not allow the action.',
);
builder.objectField(InvalidStateError, 'currentState', (t) =>
  t.string({
    nullable: true,
    description: 'State the object is in.',
    resolve: (refusal) => refusal.details.currentState,
  }),
);

export const IdempotencyConflictError = errorType(
  'IdempotencyConflictError',
  'The idempotency key was used before with a different input.',
);
builder.objectField(IdempotencyConflictError, 'differingPaths', (t) =>
  t.field({
    type: ['SpecPath'],
    description: 'Paths whose values differ from the first submission.',
    resolve: (refusal) => refusal.details.differingPaths ?? [],
  }),
);

export const AlreadyExistsError = errorType('AlreadyExistsError', 'An object with this name already exists.');

export const PolicyViolationError = errorType(
  'PolicyViolationError',
  'A project policy forbids the request. All violations are reported at once.',
);

function errorType(name: string, description: string) {
  return builder.objectRef<UserErrorData>(name).implement({ description, interfaces: [UserError] });
}

/** Adds a mutation that takes one `input` and returns its payload or one of `errors`. */
export function addMutation<Input extends object, Payload extends object>(
  name: string,
  options: {
    description: string;
    input: InputObjectRef<Types, Input>;
    inputDescription: string;
    payload: ObjectRef<Types, Payload>;
    /** Name of the union; `<Name>Result` when left out. Several mutations with one name share one union. */
    result?: string;
    resultDescription?: string;
    errors: ObjectRef<Types, UserErrorData>[];
    resolve: (input: Input, context: Context) => Promise<Payload>;
  },
): void {
  const errorNames = new Set(options.errors.map((error) => error.name));
  const result = resultUnion(options.result ?? `${name.charAt(0).toUpperCase()}${name.slice(1)}Result`, {
    description: options.resultDescription ?? `Result of \`${name}\`.`,
    payload: options.payload,
    errors: options.errors,
  });
  builder.mutationField(name, (t) =>
    t.field({
      type: result,
      description: options.description,
      args: { input: t.arg({ type: options.input as never, required: true, description: options.inputDescription }) },
      // The cast is needed since Pothos cannot follow the generic payload through its resolver
      // type.
      resolve: (async (_: unknown, args: { input: Input }, context: Context) => {
        try {
          return await options.resolve(args.input, context);
        } catch (error) {
          if (error instanceof Refusal && errorNames.has(typeNames[error.code as TypedCode])) return toUserError(error);
          throw error;
        }
      }) as never,
    }),
  );
}

const unions = new Map<string, { ref: ReturnType<typeof newUnion>; members: string }>();

type UnionOptions = {
  description: string;
  payload: ObjectRef<Types, never>;
  errors: readonly ObjectRef<Types, UserErrorData>[];
};

function resultUnion<Payload extends object>(
  name: string,
  options: Omit<UnionOptions, 'payload'> & { payload: ObjectRef<Types, Payload> },
) {
  const members = [options.payload, ...options.errors].map((member) => member.name).join(' | ');
  const existing = unions.get(name);
  if (existing && existing.members !== members) throw new Error(`${name} is ${existing.members}, not ${members}.`);
  if (existing) return existing.ref;
  const ref = newUnion(name, options as never);
  unions.set(name, { ref, members });
  return ref;
}

function newUnion(name: string, { description, payload, errors }: UnionOptions) {
  return builder.unionType(name, {
    description,
    types: [payload, ...errors],
    resolveType: (value: object) =>
      'httpStatus' in value ? typeNames[(value as UserErrorData).code as TypedCode] : payload.name,
  });
}

/** Payload of a deletion. */
export const DeletePayloadRef = builder.objectRef<{ deletedId: string }>('DeletePayload').implement({
  description: 'Success of a deletion.',
  fields: (t) => ({
    deletedId: t.exposeID('deletedId', { description: 'Id of the deleted object, to evict it from client caches.' }),
  }),
});

/** Options that all deleting mutations share: one result type for all of them. */
export const deletion = {
  result: 'DeleteResult',
  resultDescription: 'Result of `deleteSchedule`, `deleteSecret` and `revokeToken`.',
  payload: DeletePayloadRef,
  errors: [NotFoundError, PermissionError, InvalidStateError],
};
