// The one pipeline of POST, GET, event streams (SSE) and websockets: parse, validate with limits
// and variables, execute, mask errors. Every check is a rule of parsing or validation, so that no
// transport can pass it by.
import {
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  getOperationAST,
  GraphQLError,
  type GraphQLSchema,
  NoSchemaIntrospectionCustomRule,
  parse,
  validate,
  type ValidationRule,
} from 'graphql';
import { createYoga, type Plugin } from 'graphql-yoga';
import type { Actor } from '../../actor.ts';
import { Refusal } from '../../errors.ts';
import type { Budget } from '../../graphql/budget.ts';
import type { Pieces } from '../../graphql/json.ts';
import { atMost, maxErrors, publicError, refusalError, type ReportBug, requestError } from '../../graphql/error.ts';
import { limitsRule, maxDocument, maxTokens } from '../../graphql/limits.ts';
import { writeResult } from './result-text.ts';
import { contextOf, type Gateway } from '../context.ts';
import { createDocuments, type Documents } from './documents.ts';
import { describeOperation, type Operation } from './operation.ts';
import { operationRule } from './operation-rule.ts';
import { schema } from './schema.ts';
import { isShared, type SharedExecution, toYoga } from './shared-execution.ts';

/** The caller of one operation. */
export type Caller = {
  actor: Actor | null;
  idempotencyKey: string | null;
  /**
   * Bytes that the operation may hold in memory. The creator of the caller closes it once the
   * answer is written.
   */
  budget: Budget;
  /** Aborted when the client has gone: the operation is given up. */
  clientGone: AbortSignal;
  /**
   * Receives the data of a long result as pieces. The text of the answer then ends before them, and
   * the receiver appends them. Without it, the text is whole.
   */
  onLongData?: (data: Pieces) => void;
  /** Called with the operation once it is valid, before it runs. May throw a refusal. */
  onOperation?: (operation: Operation) => void;
};

export type Pipeline = ReturnType<typeof createPipeline>;

/** Makes the pipeline. With `shared`, equal subscriptions share one execution. */
export function createPipeline(gateway: Gateway, report: ReportBug, shared: SharedExecution | null) {
  const costs: Costs = new WeakMap();
  const documents = createDocuments();
  return createYoga<Caller, object>({
    schema,
    // Yoga makes the context after validation and before anything runs, for subscriptions too: the
    // right moment to charge the operation.
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
    // `documents` caches instead: some rules depend on variables, which Yoga's cache ignores
    parserAndValidationCache: false,
    maxRequestBodySize: false, // `readBody` counts the bytes
    batching: false,
    multipart: false,
    cors: false,
    graphiql: false,
    landingPage: false,
    logging: false,
  });
}

/** Cost of an operation in points, by the `params` object of its request. Validation sets it. */
type Costs = WeakMap<object, number>;

type OperationParams = { operationName?: string | null; variables?: Record<string, unknown> | null };

function pipelinePlugin({ config, admission }: Gateway, costs: Costs, documents: Documents): Plugin<Caller> {
  return {
    onExecute({ executeFn, setExecuteFn, context }) {
      const { clientGone } = context as unknown as Caller;
      setExecuteFn(async (args: Parameters<typeof executeFn>[0]) => {
        try {
          return await admission.run((signal) => {
            // Yoga's types do not know `signal`, which graphql-js takes.
            const timed = { ...args, signal };
            return limitErrors(executeFn(timed));
          }, clientGone);
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
      // Without a token there are no suggestions ("Did you mean …?"): they would reveal the schema
      // name by name.
      const hideSuggestions = actor === null;
      const variables = isRecord(params.variables) ? params.variables : {};
      const sizeRule = limitsRule({
        maxDepth: config.maxDepth,
        maxCost: config.maxOperationCost,
        variables,
        onCost: (cost) => costs.set(params, Math.max(cost, costs.get(params) ?? 0)),
      });
      const variablesRule = operationRule((document) => getOperationAST(document, params.operationName), {
        variables,
        idempotencyKey,
        hideSuggestions,
      });
      setValidationFn(((schema: GraphQLSchema, document: DocumentNode, textRules: ValidationRule[]) => {
        // The size limits run first and alone: the standard rules take time that grows with the
        // square of what a document repeats.
        const tooLarge = validate(schema, document, [sizeRule], { hideSuggestions });
        if (tooLarge.length > 0) return tooLarge;
        const rules = documents.isValid(document) ? [variablesRule] : [...textRules, variablesRule];
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

/**
 * Uses shared executions for event streams (SSE). Contexts without `request` are of websockets,
 * which call `shared.subscribe` in `ws/protocol.ts`.
 */
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

/**
 * Counts event streams (SSE) for the cap of their token, shared or not. Contexts without `request`
 * are of websockets, which `ws/protocol.ts` counts.
 */
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

/**
 * Writes each HTTP result as text, in turns of 10 ms; Yoga would write it in one piece. Websockets
 * write theirs in `ws/protocol.ts`.
 */
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

/**
 * Writes each result of an event stream; shared results have their text already. It is no
 * generator: its `return` must wake a `next` that waits.
 */
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

/**
 * Bounds the errors of a result to 20: a page of a thousand objects that all fail would have a
 * thousand.
 */
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
