// /graphql over HTTP: GraphiQL for browsers, and the pipeline for POST, GET and Server-Sent Events.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline as pipeStream } from 'node:stream/promises';
import { accountOf } from '../../actor.ts';
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

/** For what would last, at a gateway that stops: it is to be had at another one. */
export function stoppingRefusal(): Refusal {
  return new Refusal('UNAVAILABLE', 'This gateway is stopping.', { retryAfterSeconds: 1 });
}

/** Why work is given up when its client has left: nobody gets to see it. */
export function leftRefusal(): Refusal {
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
  const { gateway, pipeline, sessions, drain, stopping, entry, introspections } = options;
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
  const actor = (entry.actor = await actorOf(gateway, tokenOf(request))); // before a body is read
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
  const ended = new AbortController();
  const left = new AbortController();
  const budget = gateway.resultBytes.open(accountOf(actor));
  response.once('close', () => {
    ended.abort();
    left.abort(leftRefusal());
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
    // Yoga's own, not Node's: a light stand-in that it reads without a stream.
    new pipeline.fetchAPI.Request(method === 'GET' ? url : new URL(graphqlPath, url), {
      method,
      headers: pick(headers, ['accept', 'content-type']),
      ...(body === undefined ? {} : { body: toJson(operationOf(body.json)) }),
      signal: ended.signal,
    }),
    {
      actor,
      idempotencyKey: typeof idempotencyKey === 'string' ? idempotencyKey : null,
      budget,
      left: left.signal,
      // An event stream holds its text between words of its own.
      ...(headers.accept?.includes('text/event-stream') ? {} : { onLongData: (data) => void (longData = data) }),
      onOperation,
    },
  );
  if (answered.headers.get('content-type')?.startsWith('text/event-stream') && !response.destroyed) {
    entry.streams(answered.status);
    // Cut, not ended: to its client a stream that ends has told everything.
    const cut = () => void response.destroy();
    const leave = [sessions.open(actor, cut), drain.add({ close: cut, terminate: cut })];
    response.setMaxListeners(20); // the pipe below adds many
    if (response.socket) leave.push(watchStuck(response.socket, cut));
    response.once('close', () => leave.forEach((left) => left()));
  }
  const sent = await relay(answered, response, longData);
  if (introspection === null || sent === null || answered.status !== 200 || !isIntrospection(entry.operation)) return;
  introspections.keep(introspection, sent, answered.headers.get('content-type') ?? 'application/json');
}

/** The members of a body that mean something; others are ignored. What is no object is refused further on. */
function operationOf(json: unknown): unknown {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return json;
  const { query, operationName, variables, extensions } = json as Record<string, unknown>;
  return { query, operationName, variables, extensions };
}

/** JSON that says what was read. 1e400 was read as a number that JSON cannot say: it would become null unseen. */
function toJson(value: unknown): string {
  if (isFiniteJson(value)) return JSON.stringify(value);
  throw new Refusal('BAD_USER_INPUT', 'A number is beyond ±1.8e308.');
}

function isFiniteJson(value: unknown): boolean {
  if (typeof value === 'number') return Number.isFinite(value);
  if (typeof value !== 'object' || value === null) return true;
  return Array.isArray(value) ? value.every(isFiniteJson) : Object.values(value).every(isFiniteJson);
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

/**
 * Writes a fetch response as it comes, with its long data behind it; a client that reads slowly is waited for, one that
 * left ends the source. Gives the text, unless it was a stream.
 */
async function relay(answered: Response, response: ServerResponse, longData: Pieces | null): Promise<Pieces | null> {
  const { status } = answered;
  const headers = Object.fromEntries(answered.headers);
  if (!answered.headers.get('content-type')?.startsWith('text/event-stream')) {
    const text = await answered.text(); // known as a whole
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
    response.destroy(); // the client left, or its stream failed after the head was sent: there is nobody to tell
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
