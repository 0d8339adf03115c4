// The HTTP server: guard, then GraphQL (POST, GET, SSE), GraphiQL, jobs over plain HTTP, the runners' control and the
// probes.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import type { Duplex } from 'node:stream';
import { pipeline as pipeStream } from 'node:stream/promises';
import { Refusal } from '../errors.ts';
import { publicError, refusalError, type ReportBug } from '../graphql/error.ts';
import { requireActor } from '../actor.ts';
import { actorOf, type Gateway, tokenOf } from './context.ts';
import { graphiqlPage } from './graphiql.ts';
import { checkHost, checkOrigin, corsHeaders, isRefused, parseJson, readJson, type Refused } from './guard.ts';
import type { Pipeline } from './pipeline.ts';
import { refuseRest } from './problem.ts';
import { answerRest, isRestPath } from './rest.ts';
import { answerRunner } from './runners.ts';
import type { Sockets } from './sockets.ts';
import { answerWatch } from './watch.ts';

export type HttpOptions = {
  gateway: Gateway;
  pipeline: Pipeline;
  sockets: Sockets;
  report: ReportBug;
  /** Aborted when the gateway stops: waits end, and `/readyz` says no. */
  stopping: AbortSignal;
};

const graphqlPath = '/graphql';

export function createHttpServer(options: HttpOptions): Server {
  const server = createServer({ maxHeaderSize: 16 * 1024, requestTimeout: 60_000 }, (request, response) => {
    answer(options, request, response).catch((error: unknown) => sendError(options, response, error));
  });
  server.on('upgrade', (request, socket, head) => upgrade(options, request, socket, head));
  return server;
}

async function answer(options: HttpOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { config } = options.gateway;
  response.setHeader('x-content-type-options', 'nosniff');
  const path = (request.url ?? '/').split('?', 1)[0] ?? '/';
  if (path === '/livez') return send(response, 200, { status: 'alive' });
  if (path === '/readyz') return answerReady(options, response);

  const refused = checkHost(request.headers, config) ?? checkOrigin(request.headers, config);
  if (refused) return isRestPath(path) ? refuseRest(response, refused) : refuse(response, refused);
  for (const [name, value] of Object.entries(corsHeaders(request.headers, config))) response.setHeader(name, value);

  if (path === graphqlPath) return answerGraphql(options, request, response);
  if (isRestPath(path)) return answerRest(options, request, response, path);
  if (path.startsWith('/runner/v1/')) return answerControl(options, request, response, path);
  if (config.console && request.method === 'GET' && (await answerWatch(path, response))) return;
  if (path === '/') {
    response.writeHead(302, { location: graphqlPath }).end();
    return;
  }
  return refuse(response, { status: 404, message: `There is nothing at this path; GraphQL is at ${graphqlPath}.` });
}

async function answerGraphql(options: HttpOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { gateway, pipeline } = options;
  const { method = 'GET', headers } = request;
  if (method === 'OPTIONS') {
    response.writeHead(204, { allow: 'GET, POST, OPTIONS' }).end();
    return;
  }
  if (method === 'GET' && prefersHtml(headers.accept) && gateway.config.graphiql) {
    return sendGraphiql(response, headers['accept-encoding']);
  }
  if (method !== 'GET' && method !== 'POST') {
    response.setHeader('allow', 'GET, POST, OPTIONS');
    return refuse(response, { status: 405, message: 'Use POST, or GET for queries and subscriptions.' });
  }
  const body = method === 'POST' ? await readJson(request, gateway.config.maxBodyBytes) : undefined;
  if (isRefused(body)) return refuse(response, body);
  const url = new URL(request.url ?? graphqlPath, 'http://gateway');
  const wrongSearch = method === 'GET' ? cleanSearch(url.searchParams) : null;
  if (wrongSearch) return refuse(response, wrongSearch);

  const actor = await actorOf(gateway, tokenOf(request));
  const ended = new AbortController();
  response.once('close', () => ended.abort());
  const idempotencyKey = headers['idempotency-key'];
  const answered = await pipeline.fetch(
    new Request(method === 'GET' ? url : new URL(graphqlPath, url), {
      method,
      headers: pick(headers, ['accept', 'content-type']),
      ...(body === undefined ? {} : { body: toJson(operationOf(body.json)) }),
      signal: ended.signal,
    }),
    { actor, idempotencyKey: typeof idempotencyKey === 'string' ? idempotencyKey : null },
  );
  await relay(answered, response);
}

/** The members of a body that mean something; others are ignored. What is no object is refused further on. */
function operationOf(json: unknown): unknown {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return json;
  const { query, operationName, variables, extensions } = json as Record<string, unknown>;
  return { query, operationName, variables, extensions };
}

/** JSON that says what was read. 1e400 was read as a number that JSON cannot say: it would become null unseen. */
function toJson(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => {
    if (typeof inner !== 'number' || Number.isFinite(inner)) return inner;
    throw new Refusal('BAD_USER_INPUT', 'A number is beyond ±1.8e308.');
  });
}

/** Reads the JSON in a GET's parameters as that of a body is read; what is wrong with it, if anything. */
function cleanSearch(search: URLSearchParams): Refused | null {
  for (const name of ['variables', 'extensions']) {
    const text = search.get(name);
    if (!text) continue;
    const json = parseJson(text);
    if (json === undefined) return { status: 400, message: `The parameter ${name} is not JSON.` };
    search.set(name, toJson(json));
  }
  return null;
}

/** Writes a fetch response as it comes; a client that reads slowly is waited for, one that left ends the source. */
async function relay(answered: Response, response: ServerResponse): Promise<void> {
  response.writeHead(answered.status, { 'cache-control': 'no-store', ...Object.fromEntries(answered.headers) });
  if (!answered.body) {
    response.end();
    return;
  }
  try {
    await pipeStream(Readable.from(answered.body as AsyncIterable<Uint8Array>, { objectMode: false }), response);
  } catch {
    response.destroy(); // the client left, or its stream failed after the head was sent: there is nobody to tell
  }
}

async function answerControl(
  options: HttpOptions,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
): Promise<void> {
  const { gateway, stopping } = options;
  if (request.method !== 'POST') return refuse(response, { status: 405, message: 'Use POST.' });
  const body = await readJson(request, gateway.config.maxBodyBytes);
  if (isRefused(body)) return refuse(response, body);
  const actor = requireActor(await actorOf(gateway, tokenOf(request)));
  const left = new AbortController();
  response.once('close', () => left.abort());
  const answered = await answerRunner(gateway, actor, path, body.json, AbortSignal.any([stopping, left.signal]));
  if (answered === null) return refuse(response, { status: 404, message: 'There is nothing at this path.' });
  send(response, 200, answered);
}

async function answerReady({ gateway, stopping }: HttpOptions, response: ServerResponse): Promise<void> {
  if (stopping.aborted) return send(response, 503, { status: 'stopping' });
  try {
    await gateway.database.ping(2_000);
  } catch {
    return send(response, 503, { status: 'unavailable', database: 'unreachable' });
  }
  const bus = await gateway.bus.ping().then(
    () => 'reachable',
    () => 'unreachable',
  );
  send(response, 200, { status: bus === 'reachable' ? 'ready' : 'degraded', database: 'reachable', bus });
}

async function sendGraphiql(response: ServerResponse, encodings: string | string[] | undefined): Promise<void> {
  const { plain, gzipped, headers } = await graphiqlPage();
  const gzip = String(encodings ?? '').includes('gzip');
  const encoding = gzip ? { 'content-encoding': 'gzip' } : {};
  response.writeHead(200, { ...headers, ...encoding, vary: 'accept, accept-encoding' });
  response.end(gzip ? gzipped : plain);
}

function prefersHtml(accept: string | undefined): boolean {
  return /^text\/html\b/.test(accept ?? '');
}

function pick(headers: IncomingMessage['headers'], names: string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => (typeof headers[name] === 'string' ? [[name, headers[name]]] : [])),
  );
}

function upgrade(options: HttpOptions, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const { gateway, sockets, stopping } = options;
  const path = (request.url ?? '/').split('?', 1)[0];
  const refused =
    checkHost(request.headers, gateway.config) ??
    checkOrigin(request.headers, gateway.config) ??
    (path === graphqlPath ? null : { status: 404, message: `WebSockets are served at ${graphqlPath}.` }) ??
    (stopping.aborted ? { status: 503, message: 'The gateway is stopping.' } : null);
  if (!refused) return sockets.accept(request, socket, head);
  // Node has let go of the socket: without a listener a client that resets it would end the process, and without the
  // destroy one that never closes its side would keep it.
  socket.on('error', () => socket.destroy());
  socket.once('finish', () => socket.destroy());
  const body = JSON.stringify(errorBody(refused));
  socket.end(
    `HTTP/1.1 ${refused.status} Refused\r\nconnection: close\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

const codes: Record<number, string> = { 403: 'PERMISSION_DENIED', 404: 'NOT_FOUND', 503: 'UNAVAILABLE' };

function errorBody({ status, message }: Refused) {
  const code = codes[status] ?? 'BAD_USER_INPUT';
  return { errors: [{ message, extensions: { code, retryable: status === 503 } }] };
}

/** Answers a request that the guard refused, and ends a connection whose body nobody will read. */
function refuse(response: ServerResponse, refused: Refused): void {
  if (response.headersSent || response.destroyed) return;
  if (!response.req.complete) response.setHeader('connection', 'close');
  send(response, refused.status, errorBody(refused));
}

function sendError(options: HttpOptions, response: ServerResponse, error: unknown): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  const shown = error instanceof Refusal ? refusalError(error) : publicError(error, options.report);
  const { http, ...extensions } = shown.extensions;
  const status = (http as { status?: number } | undefined)?.status ?? 500;
  if (status === 401) response.setHeader('www-authenticate', 'Bearer');
  send(response, status, { errors: [{ message: shown.message, extensions }] });
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
}
