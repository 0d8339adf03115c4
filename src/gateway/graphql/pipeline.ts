// The one pipeline of POST, GET, SSE and WebSocket: parse, validate with limits and variables, execute, mask errors.
// Everything that may refuse is a rule of parsing or validation, so that no transport can pass it by.
import {
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  type FieldNode,
  getNamedType,
  getOperationAST,
  GraphQLError,
  type GraphQLSchema,
  isInputObjectType,
  Kind,
  NoSchemaIntrospectionCustomRule,
  parse,
  type SelectionSetNode,
  validate,
  type ValidationContext,
  type ValidationRule,
} from 'graphql';
import { createYoga, type Plugin } from 'graphql-yoga';
import type { Actor } from '../../actor.ts';
import { Refusal } from '../../errors.ts';
import type { Budget } from '../../graphql/budget.ts';
import type { Pieces } from '../../graphql/json.ts';
import { checkVariables } from '../../graphql/input.ts';
import { atMost, maxErrors, publicError, refusalError, type ReportBug, requestError } from '../../graphql/error.ts';
import { limitsRule, maxDocument, maxTokens } from '../../graphql/limits.ts';
import { writeResult } from './result-text.ts';
import { contextOf, type Gateway } from '../context.ts';
import { createDocuments, type Documents } from './documents.ts';
import { describeOperation, type Operation } from './operation.ts';
import { schema } from './schema.ts';
import { isShared, type SharedExecution, toYoga } from './shared-execution.ts';

/** Who sends the operation, and the HTTP header `Idempotency-Key`. */
export type Caller = {
  actor: Actor | null;
  idempotencyKey: string | null;
  /** What the operation may hold; whoever makes the caller closes it when the answer was written. */
  budget: Budget;
  /** Aborted when nobody waits for the answer any more. */
  left: AbortSignal;
  /** Given the long data of a result, which is then sent behind the text of the answer; without it the text is whole. */
  onLongData?: (data: Pieces) => void;
  /** Told what is asked for, once it is known to be valid and before it runs; may throw a refusal. */
  onOperation?: (operation: Operation) => void;
};

export type Pipeline = ReturnType<typeof createPipeline>;

/** With `shared`, subscriptions that ask the same have one execution. */
export function createPipeline(gateway: Gateway, report: ReportBug, shared: SharedExecution | null) {
  const costs: Costs = new WeakMap();
  const documents = createDocuments();
  return createYoga<Caller, object>({
    schema,
    // Made after validation and before anything runs, for subscriptions too: here an operation is paid for.
    async context({ actor, idempotencyKey, budget, params }) {
      await gateway.admission.charge(actor, costs.get(params) ?? 0);
      return contextOf(gateway, actor, idempotencyKey, budget);
    },
    plugins: [
      pipelinePlugin(gateway, costs, documents),
      ...(shared ? [sharedPlugin(shared)] : []),
      capsPlugin(gateway),
      writingPlugin(),
    ],
    maskedErrors: { errorMessage: '', maskError: (error) => publicError(error, report) },
    graphqlEndpoint: '/graphql',
    parserAndValidationCache: false, // ours: some rules look at variables
    maxRequestBodySize: false, // counted where the body is read
    batching: false,
    multipart: false,
    cors: false,
    graphiql: false,
    landingPage: false,
    logging: false,
  });
}

/** What an operation costs, by its parameters: known from validation on. */
type Costs = WeakMap<object, number>;

type OperationParams = { operationName?: string | null; variables?: Record<string, unknown> | null };

function pipelinePlugin({ config, admission }: Gateway, costs: Costs, documents: Documents): Plugin<Caller> {
  return {
    onExecute({ executeFn, setExecuteFn, context }) {
      const { left } = context as unknown as Caller;
      setExecuteFn(async (args: Parameters<typeof executeFn>[0]) => {
        try {
          return await admission.run((signal) => {
            const timed = { ...args, signal }; // of Yoga's executor, which types what graphql-js takes
            return limitErrors(executeFn(timed));
          }, left);
        } catch (error) {
          if (error instanceof Refusal) return { errors: [refusalError(error)] };
          throw error;
        }
      });
    },
    onParse({ setParseFn }) {
      setParseFn((source: Parameters<typeof parse>[0]) => documents.find(source) ?? parseDocument(source));
    },
    onValidate({ addValidationRule, setValidationFn, context, params: { documentAST } }) {
      const {
        params = {},
        idempotencyKey,
        actor,
        onOperation,
      } = context as unknown as Caller & { params?: OperationParams };
      // A suggestion would tell the schema to who may not be told, name by name.
      const hideSuggestions = actor === null;
      const variables = isRecord(params.variables) ? params.variables : {};
      const ofSize = limitsRule({
        maxDepth: config.maxDepth,
        maxCost: config.maxOperationCost,
        variables,
        onCost: (cost) => costs.set(params, Math.max(cost, costs.get(params) ?? 0)),
      });
      const ofVariables = operationRule((document) => getOperationAST(document, params.operationName), {
        variables,
        idempotencyKey,
        hideSuggestions,
      });
      setValidationFn(((schema: GraphQLSchema, document: DocumentNode, ofText: ValidationRule[]) => {
        // First and alone: the standard rules take time with the square of what a document repeats.
        const tooLarge = validate(schema, document, [ofSize], { hideSuggestions });
        if (tooLarge.length > 0) return tooLarge;
        const rules = documents.isValid(document) ? [ofVariables] : [...ofText, ofVariables];
        return validate(schema, document, rules, { hideSuggestions, maxErrors });
      }) as never);
      if (!config.introspection) addValidationRule(NoSchemaIntrospectionCustomRule as never);
      return ({ valid, result, setResult }) => {
        if (!valid) return setResult(atMost(result as GraphQLError[]).map(withStatus));
        documents.keep(documentAST as DocumentNode);
        const operation = onOperation && describeOperation(documentAST, params.operationName);
        if (operation) onOperation(operation);
      };
    },
  };
}

/** For Server-Sent Events; websockets ask before they come here. */
function sharedPlugin(shared: SharedExecution): Plugin<Caller> {
  return {
    onSubscribe({ subscribeFn, setSubscribeFn, args: { contextValue } }) {
      if (!('request' in contextValue)) return;
      setSubscribeFn((async (args: ExecutionArgs) => {
        const results = await shared.subscribe(args);
        if (results === null) return subscribeFn(args as never) as unknown;
        return isShared(results) ? toYoga(results) : results;
      }) as never);
    },
  };
}

/** For Server-Sent Events, around whatever opens the subscription; websockets count theirs before they come here. */
function capsPlugin({ caps }: Gateway): Plugin<Caller> {
  return {
    onSubscribe({ subscribeFn, setSubscribeFn, args: { contextValue } }) {
      if (!('request' in contextValue)) return;
      const { actor } = contextValue as unknown as Caller;
      setSubscribeFn(((args: ExecutionArgs) =>
        caps.subscribe(actor, args, () => subscribeFn(args as never) as unknown)) as never);
    },
  };
}

/** Over HTTP: each result gets its text here, in turns; Yoga would make all of it at once. Websockets make it themselves. */
function writingPlugin(): Plugin<Caller> {
  return {
    async onExecutionResult({ result, setResult, context }) {
      const { budget, onLongData } = context as unknown as Caller;
      if (isIterable(result)) setResult(writeEach(result as AsyncIterableIterator<ExecutionResult>, budget));
      else if (isRecord(result) && 'data' in result) {
        setResult(await writeResult(result as ExecutionResult, budget, onLongData));
      }
    },
  };
}

/** Hand-written, since `return` must wake a waiting `next`. What was executed for many has its text already. */
function writeEach(
  results: AsyncIterableIterator<ExecutionResult>,
  budget: Budget,
): AsyncIterableIterator<ExecutionResult> {
  return {
    async next() {
      const step = await results.next();
      if (step.done || 'stringify' in step.value) return step;
      return { done: false, value: await writeResult(step.value, budget) };
    },
    async return() {
      await results.return?.();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

function isIterable(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A result of at most 20 errors: one page of objects that all fail would have a thousand. */
async function limitErrors(running: unknown): Promise<unknown> {
  const result = (await running) as { errors?: readonly GraphQLError[] };
  if (!result.errors || result.errors.length <= maxErrors) return result;
  return { ...result, errors: atMost(result.errors) };
}

function withStatus(error: GraphQLError): GraphQLError {
  const clean = requestError(error);
  clean.extensions['http'] ??= { status: 400 };
  return clean;
}

function parseDocument(source: Parameters<typeof parse>[0]): DocumentNode {
  const { length } = typeof source === 'string' ? source : source.body;
  if (length > maxDocument) throw tooLong(`The document has ${length} characters; ${maxDocument} are the most.`);
  try {
    return parse(source, { maxTokens });
  } catch (error) {
    const tooLarge =
      error instanceof RangeError ||
      (error instanceof Error && /maxTokens|more th[ae]n \d+ tokens/.test(error.message));
    if (tooLarge) throw tooLong(`The document has more than ${maxTokens} tokens, or is nested too deep.`);
    if (!(error instanceof GraphQLError)) throw error;
    const clean = requestError(error);
    clean.extensions['http'] = { status: 400 };
    throw clean;
  }
}

function tooLong(message: string): GraphQLError {
  const extensions = { code: 'OPERATION_TOO_LARGE', retryable: false, http: { status: 400 } };
  return new GraphQLError(`${message} Send values as variables.`, { extensions });
}

/** Variables of the operation that will run, and the header `Idempotency-Key`, which can mean one mutation only. */
function operationRule(
  operationOf: (document: DocumentNode) => ReturnType<typeof getOperationAST>,
  given: { variables: Record<string, unknown>; idempotencyKey: string | null; hideSuggestions: boolean },
): ValidationRule {
  return (context) => ({
    Document(document) {
      const operation = operationOf(document);
      if (!operation) return false;
      const schema = context.getSchema();
      const problems = checkVariables(schema, operation, given.variables, given.hideSuggestions);
      for (const error of problems) context.reportError(error);
      const root = schema.getMutationType();
      if (given.idempotencyKey === null || operation.operation !== 'mutation' || !root) return false;
      const keyed = rootFields(context, operation.selectionSet).filter((node) => {
        const input = root.getFields()[node.name.value]?.args.find((argument) => argument.name === 'input');
        const type = input && getNamedType(input.type);
        return isInputObjectType(type) && 'idempotencyKey' in type.getFields();
      });
      if (keyed.length > 1) {
        const message =
          'The header Idempotency-Key can stand for one mutation; this operation has several that take a key.';
        context.reportError(new GraphQLError(message, { nodes: operation }));
      }
      return false; // what is inside of it is not for this rule
    },
  });
}

/** Fields of a selection, those of its fragments included; each fragment once, so that a cycle ends. */
function rootFields(context: ValidationContext, set: SelectionSetNode, seen = new Set<string>()): FieldNode[] {
  return set.selections.flatMap((selection) => {
    if (selection.kind === Kind.FIELD) return [selection];
    if (selection.kind === Kind.INLINE_FRAGMENT) return rootFields(context, selection.selectionSet, seen);
    const name = selection.name.value;
    const fragment = seen.has(name) ? undefined : context.getFragment(name);
    seen.add(name);
    return fragment ? rootFields(context, fragment.selectionSet, seen) : [];
  });
}
