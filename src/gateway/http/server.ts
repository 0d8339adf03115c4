// The HTTP server: the guard first, then the route: GraphQL (POST, GET, SSE), GraphiQL, jobs over
// plain HTTP, control requests of runners, and the probes.
import { type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { Refusal } from '../../errors.ts';
import { connectionFigures } from '../../metrics-registry.ts';
import { publicError, refusalError, type ReportBug } from '../../graphql/error.ts';
import { requireActor } from '../../actor.ts';
import { jobSpecSchema } from '../../spec/json-schema.ts';
import { errorBody, refuse, send } from './answer.ts';
import { createBoundedServer } from './connections.ts';
import { actorOf, type Gateway, tokenOf } from '../context.ts';
import { answerGraphql, graphqlPath, stoppingRefusal } from './graphql.ts';
import { checkHost, checkOrigin, corsHeaders, isRefused, readJson } from './guard.ts';
import { answerErrors } from './explain.ts';
import { createIntrospections, type Introspections } from '../graphql/introspection.ts';
import type { Dispatcher } from '../background/dispatcher.ts';
import type { Drain } from './connection-drain.ts';
import type { RequestEntry, RequestLog } from '../watch/request-log.ts';
import type { Pipeline } from '../graphql/pipeline.ts';
import { prepareAnswer, type PreparedAnswer, sendPrepared } from './prepared-answer.ts';
import { refuseRest } from './problem.ts';
import { answerRest, isRestPath } from './rest.ts';
import { answerRunner } from './runners.ts';
import type { Sessions } from './sessions.ts';
import type { Sockets } from '../ws/sockets.ts';
import type { UplinkWatch } from '../watch/uplink-watch.ts';
import { answerWatch } from '../pages/watch.ts';

export type HttpOptions = {
  gateway: Gateway;
  pipeline: Pipeline;
  dispatcher: Dispatcher;
  sockets: Sockets;
  sessions: Sessions;
  drain: Drain;
  requestLog: RequestLog;
  report: ReportBug;
  /** The reason why no record of a runner can be stored here; null while records can. */
  brokenIntake(): string | null;
  uplink: Pick<UplinkWatch, 'problem' | 'oldestBatchSeconds'>;
  /** Aborted when the gateway stops: claims end their wait, and `/readyz` answers 503. */
  stopping: AbortSignal;
};

export function createHttpServer(options: HttpOptions): Server {
  const { maxConnections } = options.gateway.config;
  const introspections = createIntrospections();
  const server = createBoundedServer({ maxConnections }, (request, response) => {
    const entry = options.requestLog.open(request, response);
    answer({ ...options, entry, introspections }, request, response).catch((error: unknown) =>
      sendError(options, response, error),
    );
  });
  server.on('connection', (socket) => {
    connectionFigures.connections.inc();
    socket.once('close', () => connectionFigures.connections.dec());
  });
  server.on('upgrade', (request, socket, head) => upgrade(options, request, socket, head));
  return server;
}

const jsonHeaders = { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' };
let jobSpecJson: PreparedAnswer | undefined;

type CallOptions = HttpOptions & { entry: RequestEntry; introspections: Introspections };

async function answer(options: CallOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { config } = options.gateway;
  response.setHeader('x-content-type-options', 'nosniff');
  if (options.stopping.aborted) response.setHeader('connection', 'close');
  const path = (request.url ?? '/').split('?', 1)[0] ?? '/';
  if (path === '/livez') return send(response, 200, { status: 'alive' });
  if (path === '/readyz') return answerReady(options, response);

  const refused = checkHost(request.headers, config) ?? checkOrigin(request.headers, config);
  if (refused) return isRestPath(path) ? refuseRest(response, refused, config.publicUrl) : refuse(response, refused);
  for (const [name, value] of Object.entries(corsHeaders(request.headers, config))) response.setHeader(name, value);

  if (path === graphqlPath) return answerGraphql(options, request, response);
  if (isRestPath(path)) return answerRest(options, request, response, path);
  if (path.startsWith('/runner/v1/')) return answerControl(options, request, response, path);
  if (request.method === 'GET' && path === '/schema/job-spec.json')
    return sendPrepared(
      request,
      response,
      (jobSpecJson ??= prepareAnswer(JSON.stringify(jobSpecSchema()), jsonHeaders)),
    );
  if (request.method === 'GET' && answerErrors(path, response)) return;
  if (config.console && request.method === 'GET' && (await answerWatch(path, request, response))) return;
  if (path === '/') {
    response.writeHead(302, { location: graphqlPath }).end();
    return;
  }
  return refuse(response, { status: 404, message: `There is nothing at this path; GraphQL is at ${graphqlPath}.` });
}

async function answerControl(
  options: CallOptions,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
): Promise<void> {
  const { gateway, sessions, stopping, entry } = options;
  if (request.method !== 'POST') return refuse(response, { status: 405, message: 'Use POST.' });
  const actor = (entry.actor = requireActor(await actorOf(gateway, tokenOf(request))));
  const body = await readJson(request, response, gateway.config.maxBodyBytes);
  if (isRefused(body)) return refuse(response, body);
  const clientGone = new AbortController();
  response.once('close', () => clientGone.abort());
  response.once(
    'close',
    sessions.open(actor, () => clientGone.abort()),
  );
  if (stopping.aborted && path === '/runner/v1/claim') throw stoppingRefusal();
  const answered = await answerRunner(options, actor, path, body.json, AbortSignal.any([stopping, clientGone.signal]));
  if (answered === null) return refuse(response, { status: 404, message: 'There is nothing at this path.' });
  send(response, 200, answered);
}

async function answerReady(options: HttpOptions, response: ServerResponse): Promise<void> {
  const { gateway, stopping } = options;
  if (stopping.aborted) return send(response, 503, { status: 'stopping' });
  const broken = options.brokenIntake();
  if (broken !== null) return send(response, 503, { status: 'unavailable', intake: broken });
  try {
    await gateway.database.ping(2_000);
  } catch {
    return send(response, 503, { status: 'unavailable', database: 'unreachable' });
  }
  const bus = await gateway.bus.ping().then(
    () => 'reachable',
    () => 'unreachable',
  );
  const uplink = options.uplink.problem() ?? 'open';
  const status = bus === 'reachable' && uplink === 'open' ? 'ready' : 'degraded';
  const oldestBatchSeconds = Math.round(options.uplink.oldestBatchSeconds());
  send(response, 200, { status, database: 'reachable', bus, uplink, oldestBatchSeconds });
}

const fullRefusal = {
  status: 503,
  message: 'The gateway holds as many sockets and event streams as it may.',
  code: 'OVERLOADED',
};

function upgrade(options: HttpOptions, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const { gateway, sockets, drain, stopping } = options;
  const path = (request.url ?? '/').split('?', 1)[0];
  const refused =
    checkHost(request.headers, gateway.config) ??
    checkOrigin(request.headers, gateway.config) ??
    (path === graphqlPath ? null : { status: 404, message: `WebSockets are served at ${graphqlPath}.` }) ??
    (stopping.aborted ? { status: 503, message: 'The gateway is stopping.' } : null) ??
    (drain.size >= gateway.config.maxSockets ? fullRefusal : null);
  if (!refused) return sockets.accept(request, socket, head);
  // After an upgrade, Node no longer handles the socket. Without a listener for errors, a client
  // that resets it would end the process. Without `destroy`, a client that never closes its side
  // would keep it open.
  socket.on('error', () => socket.destroy());
  socket.once('finish', () => socket.destroy());
  const body = JSON.stringify(errorBody(refused));
  socket.end(
    `HTTP/1.1 ${refused.status} Refused\r\nconnection: close\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

function sendError(options: HttpOptions, response: ServerResponse, error: unknown): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  const shown = error instanceof Refusal ? refusalError(error) : publicError(error, options.report);
  const { http, ...extensions } = shown.extensions;
  const { status = 500, headers = {} } = (http ?? {}) as { status?: number; headers?: Record<string, string> };
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  if (status === 401) response.setHeader('www-authenticate', 'Bearer');
  send(response, status, { errors: [{ message: shown.message, extensions }] });
}
