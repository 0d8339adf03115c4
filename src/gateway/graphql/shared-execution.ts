// Subscribers that ask the same question about the same event share one execution and one text. Only operations of
// viewer-neutral fields are shared, and they run without a viewer; others run once for each subscriber. Access is checked
// for each subscriber: everyone opens the source with a context of their own.
import {
  createSourceEventStream,
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  executeSubscriptionEvent,
  getOperationAST,
  type GraphQLSchema,
  Kind,
  type OperationDefinitionNode,
  print,
  TypeInfo,
  validateSubscriptionArgs,
  type ValidatedSubscriptionArgs,
  visit,
  visitWithTypeInfo,
} from 'graphql';
import { liveFigures } from '../../metrics-registry.ts';
import type { ResultBytes } from '../../graphql/budget.ts';
import type { Context } from '../../graphql/builder.ts';
import { publicError, type ReportBug, withoutHttp } from '../../graphql/error.ts';
import { markDelivered } from '../../live/lag.ts';
import { textOfResult } from './result-text.ts';

/**
 * Result of one event, shared by all its subscribers. `rest` is its text with the end of the
 * websocket message as bytes, made on first use.
 */
export type SharedResult = { readonly text: string; readonly event: object; rest?: Buffer };

/** Results of one subscription; each result is made once and shared. */
export type SharedResults = {
  /** The next result; null at the end. Rejects with what ends the stream. */
  next(): Promise<SharedResult | null>;
  /** Wakes a waiting `next`. */
  return(): Promise<void>;
};

export type SharedOptions = {
  context: Omit<Context, 'actor' | 'idempotencyKey' | 'loaders' | 'budget'>;
  report: ReportBug;
  resultBytes: ResultBytes;
};

type ResultOrPromise = SharedResult | Promise<SharedResult>;

/** Results by event and by operation key, the most recently used last. A result that is being made is a promise. */
type Results = WeakMap<object, Map<string, ResultOrPromise>>;

/**
 * Upper bound of texts kept for one event. They live as long as a ring holds the event, and the ring does not count their
 * bytes. Beyond it the least recently used text is dropped and made again on demand, so popular operations stay cached.
 */
const maxTexts = 8;

export class SharedExecution {
  readonly #options: SharedOptions;
  readonly #results: Results = new WeakMap();

  constructor(options: SharedOptions) {
    this.#options = options;
  }

  /**
   * Opens the source of a subscription. Returns null, and opens nothing, for an operation that
   * cannot be shared. Returns the errors, unmasked, of a source that fails to open.
   */
  async subscribe(executionArgs: ExecutionArgs): Promise<SharedResults | ExecutionResult | null> {
    const { schema, document, operationName, variableValues, contextValue } = executionArgs;
    const operation = getOperationAST(document, operationName);
    if (operation?.operation !== 'subscription' || !isViewerNeutral(schema, document)) return null;
    const args = validateSubscriptionArgs({ schema, document, operationName, variableValues, contextValue });
    if (!('operation' in args)) return null;
    const key = groupKey(document, operation, variableValues ?? {});
    const source = await createSourceEventStream(args);
    if (!(Symbol.asyncIterator in source)) return source;
    const events = source[Symbol.asyncIterator]();
    const toResult = ({ done, value }: IteratorResult<unknown>) => {
      if (done) return null;
      liveFigures.deliveries.inc();
      return this.#resultOf(key, args, value as object);
    };
    return {
      next: () => events.next().then(toResult),
      async return() {
        await events.return?.();
      },
    };
  }

  #resultOf(key: string, args: ValidatedSubscriptionArgs, event: object): ResultOrPromise {
    let textsOfEvent = this.#results.get(event);
    if (!textsOfEvent) this.#results.set(event, (textsOfEvent = new Map()));
    const cached = textsOfEvent.get(key);
    if (cached !== undefined) {
      if (textsOfEvent.size > 1) {
        textsOfEvent.delete(key);
        textsOfEvent.set(key, cached);
      }
      return cached;
    }
    const making = this.#execute(args, event).then((made) => {
      if (textsOfEvent.get(key) === making) textsOfEvent.set(key, made);
      return made;
    });
    textsOfEvent.set(key, making);
    for (const oldest of textsOfEvent.keys()) {
      if (textsOfEvent.size <= maxTexts) break;
      textsOfEvent.delete(oldest);
    }
    return making;
  }

  async #execute(args: ValidatedSubscriptionArgs, event: object): Promise<SharedResult> {
    const { context, report, resultBytes } = this.#options;
    liveFigures.executions.inc();
    const budget = resultBytes.open('shared events');
    try {
      const contextValue = withoutViewer({ ...context, budget });
      const { data, errors } = await executeSubscriptionEvent({ ...args, rootValue: event, contextValue });
      const shown = errors && { errors: errors.map((error) => withoutHttp(publicError(error, report))) };
      return { text: await textOfResult({ data, ...shown }, budget), event };
    } finally {
      budget.close();
    }
  }
}

/** Context of a shared execution. A resolver that reads the viewer fails, because its field is not viewer-neutral. */
function withoutViewer(context: Omit<Context, 'actor' | 'idempotencyKey' | 'loaders'>): Context {
  const loaders: Context['loaders'] = new Map();
  return {
    ...context,
    loaders,
    idempotencyKey: null,
    get actor(): never {
      throw new Error(
        'A field that is executed for many asked who the viewer is; it must not be marked viewer-neutral.',
      );
    },
  };
}

/** Whether all fields of a document are marked `viewerNeutral`, themselves or by their type. */
export function isViewerNeutral(schema: GraphQLSchema, document: DocumentNode): boolean {
  const types = new TypeInfo(schema);
  let neutral = true;
  visit(
    document,
    visitWithTypeInfo(types, {
      Field(node) {
        if (node.name.value === '__typename') return;
        const marks = [types.getParentType()?.extensions, types.getFieldDef()?.extensions];
        neutral &&= marks.some((extensions) => extensions?.['viewerNeutral'] === true);
      },
    }),
  );
  return neutral;
}

/**
 * Key of everything that decides about the text of an event: the operation and its variables,
 * without the arguments of the root field. Those only chose the events (e.g. the cursor), so
 * followers with different cursors share a text.
 */
function groupKey(
  document: DocumentNode,
  operation: OperationDefinitionNode,
  values: Readonly<Record<string, unknown>>,
): string {
  const selections = operation.selectionSet.selections.map((node) =>
    node.kind === Kind.FIELD ? { ...node, arguments: [] } : node,
  );
  const bare = {
    ...operation,
    name: undefined,
    variableDefinitions: [],
    selectionSet: { ...operation.selectionSet, selections },
  };
  const others = document.definitions.filter(({ kind }) => kind === Kind.FRAGMENT_DEFINITION);
  const used = new Set<string>();
  for (const part of [bare, ...others]) visit(part, { Variable: (node) => void used.add(node.name.value) });
  const variables = (operation.variableDefinitions ?? []).filter(({ variable }) => used.has(variable.name.value));
  const usedValues = variables.map(({ variable }) => values[variable.name.value]);
  return JSON.stringify([print({ ...bare, variableDefinitions: variables }), others.map(print), usedValues]);
}

export function isShared(result: SharedResults | ExecutionResult): result is SharedResults {
  return 'next' in result;
}

/**
 * Shared results in the form that Yoga takes. It is no generator: its `return` must wake a `next`
 * that waits.
 */
export function toYoga(results: SharedResults): AsyncIterableIterator<{ stringify: () => string }> {
  return {
    async next() {
      const result = await results.next();
      if (result === null) return { done: true, value: undefined };
      const stringify = () => {
        markDelivered(result.event);
        return result.text;
      };
      return { done: false, value: { stringify } };
    },
    async return() {
      await results.return();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
