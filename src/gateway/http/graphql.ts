// /graphql over HTTP: GraphiQL for browsers, and the pipeline for POST, GET and Server-Sent Events.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline as pipeStream } from 'node:stream/promises';
import { accountOf, type Actor } from '../../actor.ts';
import { Refusal } from '../../errors.ts';
import type { Pieces } from '../../graphql/json.ts';
import { watchStuck } from '../ws/liveness.ts';
import { refuse } from './answer.ts';
import { actorOf, type Gateway, tokenOf } from '../context.ts';
import { sendPieces } from './long-answer.ts';
import type { Drain } from './connection-drain.ts';
import { graphiqlPage } from '../pages/graphiql.ts';
import { isRefused, parseJson, readJson, type Refused } from './guard.ts';
import { introspectionKey, type Introspections, isIntrospection } from '../graphql/introspection.ts';
import type { RequestEntry } from '../watch/request-log.ts';
import type { Operation } from '../graphql/operation.ts';
import type { Pipeline } from '../graphql/pipeline.ts';
import { sendPrepared } from './prepared-answer.ts';
import type { Sessions } from './sessions.ts';

export const graphqlPath = '/graphql';

type GraphqlOptions = {
  gateway: Gateway;
  pipeline: Pipeline;
  sessions: Sessions;
  drain: Drain;
  entry: RequestEntry;
  stopping: AbortSignal;
  introspections: Introspections;
};

/** Refuses a subscription or a claim at a gateway that stops; another gateway takes it. */
export function stoppingRefusal(): Refusal {
  return new Refusal('UNAVAILABLE', 'This gateway is stopping.', { retryAfterSeconds: 1 });
}

/** The reason with which work is aborted when its client has gone. No client gets to see it. */
export function clientGoneRefusal(): Refusal {
  return new Refusal('TIMEOUT', 'The client has left.');
}

function full(): Refusal {
  const message = 'The gateway holds as many sockets and event streams as it may.';
  return new Refusal('OVERLOADED', message, { retryAfterSeconds: 5 });
}

export async function answerGraphql(
  options: GraphqlOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { gateway, entry, introspections } = options;
  const { method = 'GET', headers } = request;
  if (method === 'OPTIONS') {
    response.writeHead(204, { allow: 'GET, POST, OPTIONS' }).end();
    return;
  }
  if (method === 'GET' && prefersHtml(headers.accept) && gateway.config.graphiql) {
    return sendPrepared(request, response, await graphiqlPage(), 'accept');
  }
  if (method !== 'GET' && method !== 'POST') {
    response.setHeader('allow', 'GET, POST, OPTIONS');
    return refuse(response, { status: 405, message: 'Use POST, or GET for queries and subscriptions.' });
  }
  // the token is checked before the body is read
  const actor = (entry.actor = await actorOf(gateway, tokenOf(request)));
  const body = method === 'POST' ? await readJson(request, response, gateway.config.maxBodyBytes) : undefined;
  if (isRefused(body)) return refuse(response, body);
  const url = new URL(request.url ?? graphqlPath, 'http://gateway');
  const wrongSearch = method === 'GET' ? cleanSearch(url.searchParams) : null;
  if (wrongSearch) return refuse(response, wrongSearch);

  const introspection = introspectionKey(request, url, body?.json);
  const ready = introspection === null ? undefined : introspections.find(introspection);
  if (ready) {
    await gateway.admission.charge(actor, 1);
    return sendPrepared(request, response, ready, 'accept');
  }
  const { answered, longData } = await runOperation(options, { actor, url, body: body?.json }, request, response);
  if (isEventStream(answered) && !response.destroyed) keepStream(options, actor, answered, response);
  const sent = await relay(answered, response, longData);
  if (introspection === null || sent === null || answered.status !== 200 || !isIntrospection(entry.operation)) return;
  introspections.keep(introspection, sent, answered.headers.get('content-type') ?? 'application/json');
}

/** Runs one operation by Yoga. The data of a long result comes beside the answer. */
async function runOperation(
  { gateway, pipeline, drain, stopping, entry }: GraphqlOptions,
  { actor, url, body }: { actor: Actor | null; url: URL; body: unknown },
  { method = 'GET', headers }: IncomingMessage,
  response: ServerResponse,
): Promise<{ answered: Response; longData: Pieces | null }> {
  const ended = new AbortController();
  const clientGone = new AbortController();
  const budget = gateway.resultBytes.open(accountOf(actor));
  response.once('close', () => {
    ended.abort();
    clientGone.abort(clientGoneRefusal());
    budget.close();
  });
  const idempotencyKey = headers['idempotency-key'];
  const onOperation = (operation: Operation) => {
    entry.operation = operation;
    if (operation.kind !== 'subscription') return;
    if (stopping.aborted) throw stoppingRefusal();
    if (drain.size >= gateway.config.maxSockets) throw full();
  };
  let longData: Pieces | null = null;
  const answered = await pipeline.fetch(
    // Yoga's own Request, a light stand-in: unlike Node's, it reads the body without a stream.
    new pipeline.fetchAPI.Request(method === 'GET' ? url : new URL(graphqlPath, url), {
      method,
      headers: pick(headers, ['accept', 'content-type']),
      ...(body === undefined ? {} : { body: toJson(operationOf(body)) }),
      signal: ended.signal,
    }),
    {
      actor,
      idempotencyKey: typeof idempotencyKey === 'string' ? idempotencyKey : null,
      budget,
      clientGone: clientGone.signal,
      // An event stream wraps each result, so its data cannot be appended behind the text.
      ...(headers.accept?.includes('text/event-stream') ? {} : { onLongData: (data) => void (longData = data) }),
      onOperation,
    },
  );
  return { answered, longData };
}

/** Makes an event stream a lasting connection: it ends with its token, its gateway, or its reader. */
function keepStream(
  { sessions, drain, entry }: GraphqlOptions,
  actor: Actor | null,
  { status }: Response,
  response: ServerResponse,
): void {
  entry.streams(status);
  // The connection is cut: a stream that ends properly tells its client that it is complete.
  const cut = () => void response.destroy();
  const leave = [sessions.open(actor, cut), drain.add({ close: cut, terminate: cut })];
  response.setMaxListeners(20); // the pipe of `relay` adds many listeners
  if (response.socket) leave.push(watchStuck(response.socket, cut));
  response.once('close', () => leave.forEach((end) => end()));
}

function isEventStream({ headers }: Response): boolean {
  return headers.get('content-type')?.startsWith('text/event-stream') ?? false;
}

/**
 * Keeps only the members of a body that GraphQL defines. A body that is no object is refused by
 * Yoga.
 */
function operationOf(json: unknown): unknown {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return json;
  const { query, operationName, variables, extensions } = json as Record<string, unknown>;
  return { query, operationName, variables, extensions };
}

/**
 * Writes the parsed body as JSON again, for Yoga. JSON.parse reads 1e400 as Infinity, which
 * JSON.stringify would write as null, so such a number is refused.
 */
function toJson(value: unknown): string {
  if (isFiniteJson(value)) return JSON.stringify(value);
  throw new Refusal('BAD_USER_INPUT', 'A number is beyond ±1.8e308.');
}

function isFiniteJson(value: unknown): boolean {
  if (typeof value === 'number') return Number.isFinite(value);
  if (typeof value !== 'object' || value === null) return true;
  return Array.isArray(value) ? value.every(isFiniteJson) : Object.values(value).every(isFiniteJson);
}

/**
 * Parses and rewrites the JSON parameters of a GET as `readJson` does with a body. Returns a
 * refusal when one is no JSON.
 */
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

/**
 * Writes Yoga's answer to the client, with its long data behind it. It waits for a client that
 * reads slowly, and ends the source when the client goes. Returns the text, or null for a stream.
 */
async function relay(answered: Response, response: ServerResponse, longData: Pieces | null): Promise<Pieces | null> {
  const { status } = answered;
  const headers = Object.fromEntries(answered.headers);
  if (!isEventStream(answered)) {
    const text = await answered.text(); // complete already: Yoga has all of it
    const textBytes = Buffer.byteLength(text);
    const whole = longData
      ? { pieces: [text, ...longData.pieces, '}'], bytes: textBytes + longData.bytes + 1 }
      : { pieces: [text], bytes: textBytes };
    await sendPieces(response, { status, headers, ...whole });
    return whole;
  }
  response.writeHead(status, { 'cache-control': 'no-store', ...headers });
  try {
    await pipeStream(Readable.from(answered.body as AsyncIterable<Uint8Array>, { objectMode: false }), response);
  } catch {
    // the client has gone, or the stream failed after its head was sent: no error can be sent
    response.destroy();
  }
  return null;
}

function prefersHtml(accept: string | undefined): boolean {
  return /^text\/html\b/.test(accept ?? '');
}

function pick(headers: IncomingMessage['headers'], names: string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => (typeof headers[name] === 'string' ? [[name, headers[name]]] : [])),
  );
}
