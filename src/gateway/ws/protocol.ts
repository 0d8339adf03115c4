// The GraphQL operations of websockets, as hooks of graphql-ws: who connects, what may run, and how
// its results are written.
import { type ExecutionArgs, type ExecutionResult, getOperationAST, GraphQLError } from 'graphql';
import { CloseCode, makeServer, type Server, type SubscribePayload } from 'graphql-ws';
import type { WebSocket } from 'ws';
import { accountOf, type Actor } from '../../actor.ts';
import { Refusal } from '../../errors.ts';
import type { Budget } from '../../graphql/budget.ts';
import type { Context } from '../../graphql/builder.ts';
import { publicError, type ReportBug, withoutHttp } from '../../graphql/error.ts';
import { actorOf, bearerOf, type Gateway } from '../context.ts';
import { describeOperation } from '../graphql/operation.ts';
import type { Pipeline } from '../graphql/pipeline.ts';
import { textOfResult } from '../graphql/result-text.ts';
import { isShared, type SharedExecution, type SharedResults } from '../graphql/shared-execution.ts';
import { dropProto } from '../http/guard.ts';
import type { Sessions } from '../http/sessions.ts';
import type { Pace } from '../limits/caps.ts';
import type { RequestLog } from '../watch/request-log.ts';
import { deliver, type SocketWriter } from './socket-writer.ts';

export type ProtocolOptions = {
  gateway: Gateway;
  pipeline: Pipeline;
  sessions: Sessions;
  requestLog: RequestLog;
  /** Null when each subscription is executed on its own. */
  shared: SharedExecution | null;
  report: ReportBug;
};

/** State of one websocket. `actor` is undefined until the client has sent `connection_init`. */
export type Connection = {
  socket: WebSocket;
  writer: SocketWriter;
  pace: Pace;
  clientGone: AbortSignal;
  actor?: Actor | null;
};

const initWaitMs = 5_000;

export function createProtocol(options: ProtocolOptions): Server<Connection> {
  const { report } = options;
  return makeServer<Record<string, unknown>, Connection>({
    connectionInitWaitTimeout: initWaitMs,
    onConnect: ({ connectionParams, extra }) => connect(options, extra, connectionParams),
    onSubscribe: ({ extra, subscriptions }, id, payload) =>
      prepare(options, extra, { id, payload, running: Object.keys(subscriptions).length }),
    execute: (args) => execute(options, args),
    subscribe: (args) => subscribe(options, args),
    // An error that ends a stream arrives here wrapped by graphql-ws, and is masked.
    onError: (_context, _id, _payload, errors) =>
      errors.map((error) => withoutHttp(isWrapped(error) ? publicError(error, report) : (error as GraphQLError))),
    onNext: (_context, _id, _payload, _args, result) =>
      result.errors ? { ...result, errors: result.errors.map(withoutHttp) } : result,
  });
}

/** Authenticates a websocket. Returns false after it has closed one that is refused. */
async function connect(
  { gateway, sessions, report }: ProtocolOptions,
  connection: Connection,
  params: Record<string, unknown> | undefined,
): Promise<boolean> {
  const { socket } = connection;
  try {
    connection.actor = await actorOf(gateway, tokenOf(params));
    if (socket.readyState !== socket.OPEN) return false;
    // 4403 makes clients reconnect. One that comes back with the same token then gets 4401, which
    // is final.
    const leave = sessions.open(connection.actor, (why) => socket.close(CloseCode.Forbidden, `Token ${why}`));
    socket.once('close', leave);
    const release = gateway.caps.openSocket(connection.actor);
    if (!release) {
      socket.close(1013, 'Too many sockets of this token');
      return false;
    }
    socket.once('close', release);
    return true;
  } catch (error) {
    const refused = error instanceof Refusal && error.code === 'UNAUTHENTICATED';
    // 4401 tells clients not to reconnect with the same token. Any other error is the gateway's
    // own, and 1013 makes them try again.
    if (refused) socket.close(CloseCode.Unauthorized, 'Unauthorized');
    else socket.close(1013, publicError(error, report).message.slice(0, 100));
    return false;
  }
}

/** Parses and validates an operation. Returns what runs, or the errors for its client. */
async function prepare(
  { gateway, pipeline, requestLog, report }: ProtocolOptions,
  connection: Connection,
  { id, payload, running }: { id: string; payload: SubscribePayload; running: number },
): Promise<ExecutionArgs | readonly GraphQLError[]> {
  const { actor = null, clientGone, pace, writer } = connection;
  const refuse = (errors: readonly GraphQLError[]) => {
    void requestLog.onSocket(actor, null, () => ({ errors }));
    return errors.map(withoutHttp);
  };
  try {
    gateway.caps.beginOnSocket(pace, running);
    if (!dropProto(payload)) throw new Refusal('BAD_USER_INPUT', 'The variables are nested too deep.');
    const budget = gateway.resultBytes.open(accountOf(actor));
    const caller = { actor, idempotencyKey: null, budget, clientGone };
    const enveloped = pipeline.getEnveloped({ ...caller, params: payload } as never);
    const document = enveloped.parse(payload.query) as never;
    const errors = enveloped.validate(enveloped.schema, document) as readonly GraphQLError[];
    if (errors.length > 0) return refuse(errors);
    if (!getOperationAST(document, payload.operationName)) {
      throw new Refusal('BAD_USER_INPUT', 'Could not determine what operation to execute.');
    }
    return {
      schema: enveloped.schema,
      document,
      operationName: payload.operationName,
      variableValues: payload.variables,
      contextValue: await enveloped.contextFactory(),
      rootValue: { id, writer, budget, execute: enveloped.execute, subscribe: enveloped.subscribe },
    };
  } catch (error) {
    // graphql-ws closes the whole socket for a thrown error: it becomes an error of this operation.
    return refuse([publicError(error, report)]);
  }
}

type Run = {
  id: string;
  writer: SocketWriter;
  budget: Budget;
  execute: (args: unknown) => Promise<ExecutionResult>;
  subscribe: (args: unknown) => Promise<ExecutionResult | AsyncIterableIterator<ExecutionResult>>;
};

async function execute(options: ProtocolOptions, args: ExecutionArgs) {
  const { id, writer, budget, execute } = args.rootValue as Run;
  const result = await logged(options, args, () => execute(args));
  return deliver(writer, id, writtenResults([result].values(), budget));
}

function subscribe(options: ProtocolOptions, args: ExecutionArgs) {
  const { gateway, shared, report } = options;
  const { id, writer, budget, subscribe } = args.rootValue as Run;
  return logged(options, args, (actor) =>
    gateway.caps.subscribe(actor, args, async () => {
      const results = (await shared?.subscribe(args)) ?? null;
      if (results === null) {
        const stream = await subscribe(args);
        return isIterable(stream) ? deliver(writer, id, writtenResults(stream, budget)) : stream;
      }
      if (isShared(results)) return deliver(writer, id, results);
      return { errors: results.errors?.map((error) => publicError(error, report)) };
    }),
  );
}

/** Runs an operation as an entry of the request log. */
function logged<T>(
  { requestLog }: ProtocolOptions,
  args: ExecutionArgs,
  run: (actor: Actor | null) => Promise<T> | T,
): Promise<T> {
  const { actor } = args.contextValue as Context;
  return requestLog.onSocket(actor, describeOperation(args.document, args.operationName), () => run(actor));
}

type Step = IteratorResult<ExecutionResult, unknown>;

/** Results for one subscriber alone, each with its text. The budget is closed at their end. */
function writtenResults(results: { next(): Step | Promise<Step>; return?(): unknown }, budget: Budget): SharedResults {
  return {
    async next() {
      const step = await results.next();
      return step.done ? null : { text: await textOfResult(step.value, budget), event: step.value };
    },
    async return() {
      budget.close();
      await results.return?.();
    },
  };
}

function isIterable(value: object): value is AsyncIterableIterator<ExecutionResult> {
  return Symbol.asyncIterator in value;
}

/**
 * Returns the token of `connection_init`: `{ "Authorization": "Bearer …" }` in any case, or
 * `{ "token": "…" }`. Null for no token.
 */
function tokenOf(params: Record<string, unknown> | undefined): string | null {
  const entries = Object.entries(params ?? {});
  const header = entries.find(([name]) => name.toLowerCase() === 'authorization')?.[1];
  const plain = entries.find(([name]) => name.toLowerCase() === 'token')?.[1];
  if (header === undefined && plain === undefined) return null;
  const token = typeof header === 'string' ? bearerOf(header) : typeof plain === 'string' ? plain : null;
  if (token === null) throw new Refusal('UNAUTHENTICATED', 'The token of connection_init cannot be read.');
  return token;
}

function isWrapped(error: unknown): boolean {
  return error instanceof GraphQLError && error.originalError !== undefined;
}
