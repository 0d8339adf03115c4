// GraphQL over WebSocket (`graphql-transport-ws`): graphql-ws handles the protocol, the pipeline
// runs the operations.
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type ExecutionArgs, type ExecutionResult, getOperationAST, GraphQLError } from 'graphql';
import { CloseCode, handleProtocols, makeServer, type Server } from 'graphql-ws';
import { type WebSocket, WebSocketServer } from 'ws';
import { accountOf, type Actor } from '../../actor.ts';
import { Refusal } from '../../errors.ts';
import { connectionFigures } from '../../metrics-registry.ts';
import type { Budget } from '../../graphql/budget.ts';
import type { Context } from '../../graphql/builder.ts';
import { publicError, type ReportBug, withoutHttp } from '../../graphql/error.ts';
import { holdBack, sendPings } from './liveness.ts';
import { textOfResult } from '../graphql/result-text.ts';
import type { Pace } from '../limits/caps.ts';
import { actorOf, bearerOf, type Gateway } from '../context.ts';
import type { Drain } from '../http/connection-drain.ts';
import { clientGoneRefusal } from '../http/graphql.ts';
import { dropProto } from '../http/guard.ts';
import type { RequestLog } from '../watch/request-log.ts';
import { describeOperation } from '../graphql/operation.ts';
import { createSocketWriter, deliver, type SocketWriter } from './socket-writer.ts';
import type { Pipeline } from '../graphql/pipeline.ts';
import type { Sessions } from '../http/sessions.ts';
import { isShared, type SharedExecution, type SharedResults } from '../graphql/shared-execution.ts';

export type Sockets = {
  /** Completes the upgrade of a request that passed the guard. */
  accept(request: IncomingMessage, socket: Duplex, head: Buffer): void;
};

const maxFrameBytes = 64 * 1024;
/** Bytes that a socket may send before it is acknowledged: a token and its wrapping. */
const maxInitBytes = 16 * 1024;
const initWaitMs = 5_000;

type Extra = { socket: WebSocket; writer: SocketWriter; pace: Pace; clientGone: AbortSignal; actor?: Actor | null };

export type SocketsOptions = {
  gateway: Gateway;
  pipeline: Pipeline;
  sessions: Sessions;
  drain: Drain;
  requestLog: RequestLog;
  /** Null when each subscription is executed on its own. */
  shared: SharedExecution | null;
  report: ReportBug;
};

export function createSockets({
  gateway,
  pipeline,
  sessions,
  drain,
  requestLog,
  shared,
  report,
}: SocketsOptions): Sockets {
  const { caps } = gateway;
  const entered = <T>(args: ExecutionArgs, run: (actor: Actor | null) => Promise<T> | T) => {
    const { actor } = args.contextValue as Context;
    return requestLog.onSocket(actor, describeOperation(args.document, args.operationName), () => run(actor));
  };
  const refuse = ({ actor = null }: Extra, errors: readonly GraphQLError[]) => {
    void requestLog.onSocket(actor, null, () => ({ errors }));
    return errors.map(withoutHttp);
  };
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: maxFrameBytes,
    perMessageDeflate: false,
    handleProtocols,
  });
  const protocol = makeServer<Record<string, unknown>, Extra>({
    connectionInitWaitTimeout: initWaitMs,
    async onConnect({ connectionParams, extra }) {
      try {
        extra.actor = await actorOf(gateway, tokenOf(connectionParams));
        if (extra.socket.readyState !== extra.socket.OPEN) return false;
        // 4403 makes clients reconnect. One that comes back with the same token then gets 4401,
        // which is final.
        const leave = sessions.open(extra.actor, (why) => extra.socket.close(CloseCode.Forbidden, `Token ${why}`));
        extra.socket.once('close', leave);
        const release = caps.openSocket(extra.actor);
        if (!release) {
          extra.socket.close(1013, 'Too many sockets of this token');
          return false;
        }
        extra.socket.once('close', release);
        return true;
      } catch (error) {
        const refused = error instanceof Refusal && error.code === 'UNAUTHENTICATED';
        // 4401 tells clients not to reconnect with the same token. Any other error is the gateway's
        // own, and 1013 makes them try again.
        if (refused) extra.socket.close(CloseCode.Unauthorized, 'Unauthorized');
        else extra.socket.close(1013, publicError(error, report).message.slice(0, 100));
        return false;
      }
    },
    async onSubscribe({ extra, subscriptions }, id, payload) {
      try {
        caps.beginOnSocket(extra.pace, Object.keys(subscriptions).length);
        if (!dropProto(payload)) throw new Refusal('BAD_USER_INPUT', 'The variables are nested too deep.');
        const actor = extra.actor ?? null;
        const budget = gateway.resultBytes.open(accountOf(actor));
        const caller = { actor, idempotencyKey: null, budget, clientGone: extra.clientGone };
        const enveloped = pipeline.getEnveloped({ ...caller, params: payload } as never);
        const document = enveloped.parse(payload.query) as never;
        const errors = enveloped.validate(enveloped.schema, document) as readonly GraphQLError[];
        if (errors.length > 0) return refuse(extra, errors);
        if (!getOperationAST(document, payload.operationName)) {
          throw new Refusal('BAD_USER_INPUT', 'Could not determine what operation to execute.');
        }
        return {
          schema: enveloped.schema,
          document,
          operationName: payload.operationName,
          variableValues: payload.variables,
          contextValue: await enveloped.contextFactory(),
          rootValue: { id, writer: extra.writer, budget, execute: enveloped.execute, subscribe: enveloped.subscribe },
        };
      } catch (error) {
        // graphql-ws closes the whole socket for a thrown error: it becomes an error of this
        // operation.
        return refuse(extra, [publicError(error, report)]);
      }
    },
    async execute(args) {
      const { id, writer, budget, execute } = args.rootValue as Run;
      const result = await entered(args, () => execute(args));
      return deliver(writer, id, writtenResults([result].values(), budget));
    },
    subscribe: (args) =>
      entered(args, (actor) =>
        caps.subscribe(actor, args, async () => {
          const run = args.rootValue as Run;
          const results = (await shared?.subscribe(args)) ?? null;
          if (results === null) {
            const stream = await run.subscribe(args);
            return isIterable(stream) ? deliver(run.writer, run.id, writtenResults(stream, run.budget)) : stream;
          }
          if (isShared(results)) return deliver(run.writer, run.id, results);
          return { errors: results.errors?.map((error) => publicError(error, report)) };
        }),
      ),
    // An error that ends a stream arrives here wrapped by graphql-ws, and is masked.
    onError: (_context, _id, _payload, errors) =>
      errors.map((error) => withoutHttp(isWrapped(error) ? publicError(error, report) : (error as GraphQLError))),
    onNext: (_context, _id, _payload, _args, result) =>
      result.errors ? { ...result, errors: result.errors.map(withoutHttp) } : result,
  });

  return {
    accept: (request, socket, head) =>
      server.handleUpgrade(request, socket, head, (opened) => {
        // 1012, the service restarts: clients come back at once, to another gateway.
        const close = () => opened.close(1012, 'Service restart');
        const gone = drain.add({ close, terminate: () => opened.terminate() });
        connectionFigures.sockets.inc();
        opened.once('close', () => {
          gone();
          connectionFigures.sockets.dec();
        });
        serve(opened, socket, caps.newPace(), protocol, report);
      }),
  };
}

/**
 * Connects a websocket to the protocol. The adapter of graphql-ws is not used: it prints every
 * mistake of a client with a stack, and takes binary frames for text.
 */
function serve(socket: WebSocket, raw: Duplex, pace: Pace, protocol: Server<Extra>, report: ReportBug): void {
  // ws closes the socket itself after an error, e.g. with 1009 for a frame that is too large.
  socket.on('error', () => {});
  const fail = (error: unknown) => {
    if (!isMisuse(error)) publicError(error, report);
    socket.close(isMisuse(error) ? CloseCode.BadRequest : CloseCode.InternalServerError);
  };
  const clientGone = new AbortController();
  const extra: Extra = { socket, writer: createSocketWriter(socket, raw), pace, clientGone: clientGone.signal };
  let bytesBeforeAck = 0;
  const closed = protocol.opened(
    {
      protocol: socket.protocol,
      // Settles when the text is written: graphql-ws waits for it before it pulls the next value.
      send: (text) =>
        new Promise((resolve, reject) => {
          if (socket.readyState !== socket.OPEN) return resolve();
          socket.send(text, (error) => (error && socket.readyState === socket.OPEN ? reject(error) : resolve()));
        }),
      close: (code, reason) => socket.close(code, fitReason(reason)),
      onMessage: (take) =>
        socket.on('message', (data: Buffer, isBinary) => {
          // messages after our close frame are ignored
          if (socket.readyState !== socket.OPEN) return;
          if (extra.actor === undefined && (bytesBeforeAck += data.length) > maxInitBytes) {
            return socket.close(1009, 'More than 16 KiB before connection_ack');
          }
          if (isBinary) return socket.close(CloseCode.BadRequest, 'Binary messages are not supported');
          take(data.toString('utf8')).catch(fail);
        }),
    },
    extra,
  );
  holdBack(socket, raw);
  const stopPings = sendPings(socket, raw);
  socket.once('close', (code, reason) => {
    stopPings();
    clientGone.abort(clientGoneRefusal());
    Promise.resolve(closed(code, String(reason))).catch((error: unknown) => void publicError(error, report));
  });
}

/** A close frame has room for 123 bytes of reason; a reason may quote the client, and be longer. */
function fitReason(reason: string | undefined): string | undefined {
  return reason && Buffer.byteLength(reason) <= 123 ? reason : undefined;
}

/** Whether graphql-ws threw because the client sent a message that only a server may send. */
function isMisuse(error: unknown): boolean {
  return error instanceof Error && /^Unexpected message of type /.test(error.message);
}

type Run = {
  id: string;
  writer: SocketWriter;
  budget: Budget;
  execute: (args: unknown) => Promise<ExecutionResult>;
  subscribe: (args: unknown) => Promise<ExecutionResult | AsyncIterableIterator<ExecutionResult>>;
};

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
