// A gateway for one test file, and raw requests to it as an unknown client sends them: HTTP,
// websockets, and one operation over each of the four transports.
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type IncomingHttpHeaders, request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ClientOptions, WebSocket } from 'ws';
import { readConfig } from '../../src/config.ts';
import { type RunningGateway, startGateway } from '../../src/gateway/gateway.ts';
import { skipUnless } from './absent.ts';
import { seedDataDir } from './embedded.ts';
import { startDatabase } from './postgres.ts';
import { newSecretKeys } from './secret-keys.ts';

export const adminToken = 'x'.repeat(40);
export const appOrigin = 'https://app.example';

export type Door = {
  url: string;
  port: number;
  gateway: RunningGateway;
  /** Stops the gateway and removes its folder. */
  close(): Promise<void>;
};

/**
 * Starts a gateway on a free port, with `adminToken` as its administrator, on a fresh database of a
 * real server, else on the embedded engine. The embedded engine takes three times the CPU to start
 * and more for each query: `engine: 'embedded'` is for tests of the engine.
 */
export async function openDoor(env: Record<string, string> = {}, options: { engine?: 'embedded' } = {}): Promise<Door> {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-'));
  const embedded = options.engine === 'embedded' || skipUnless('postgres').skip !== undefined;
  const database = env['DATABASE_URL'] || embedded ? undefined : await startDatabase();
  if (embedded && !env['DATABASE_URL']) await seedDataDir(folder);
  const gateway = await startGateway(
    readConfig({
      ASTRAML_DATA_DIR: folder,
      PORT: '0',
      ASTRAML_BOOTSTRAP_TOKEN: adminToken,
      ASTRAML_CORS_ORIGINS: appOrigin,
      ASTRAML_SECRET_KEYS: newSecretKeys('k1'),
      // From the environment, because the suites of subscriptions run with and without shared
      // execution.
      ASTRAML_SHARED_EXECUTION: process.env['ASTRAML_SHARED_EXECUTION'],
      DATABASE_URL: database?.url,
      ...env,
    }),
  );
  return {
    url: gateway.url,
    port: Number(new URL(gateway.url).port),
    gateway,
    async close() {
      await gateway.stop();
      await database?.stop();
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

export type GraphqlError = { message: string; path?: unknown; extensions: Record<string, unknown> & { code: string } };
export type GraphqlResult = { data?: Record<string, never> | null; errors?: GraphqlError[] };

export type HttpAnswer = {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  /** Returns the body as JSON; throws when it is not JSON. */
  json(): GraphqlResult;
};

export type HttpRequest = {
  method?: string;
  path?: string;
  headers?: Record<string, string>;
  /** Body to send unchanged; a list goes in chunks, without Content-Length. */
  body?: string | Buffer | Iterable<string | Buffer>;
};

/** Sends one HTTP request on its own connection, with exactly these headers. */
export function send(port: number, { method = 'POST', path = '/graphql', headers = {}, body }: HttpRequest) {
  return new Promise<HttpAnswer>((resolve, reject) => {
    const request = httpRequest({ port, host: '127.0.0.1', method, path, headers, agent: false });
    let answered = false;
    request.on('response', (response) => {
      answered = true;
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.once('error', reject);
      response.once('close', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        const json = () => JSON.parse(text) as GraphqlResult;
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json });
        request.destroy();
      });
    });
    // A gateway cuts off a body that it refuses; after its answer the error counts for nothing.
    request.on('error', (error) => void (answered || reject(error)));
    if (body === undefined || typeof body === 'string' || Buffer.isBuffer(body)) return void request.end(body);
    for (const chunk of body) request.write(chunk);
    request.end();
  });
}

export type Operation = {
  query: string;
  variables?: Record<string, unknown>;
  operationName?: string;
  token?: string | null;
};

export const jsonType = { 'content-type': 'application/json' };

export function bearer(token: string | null | undefined): Record<string, string> {
  return token ? { authorization: `Bearer ${token}` } : {};
}

/** Sends an operation as a plain POST, with `adminToken` unless another token is set. */
export function post(port: number, operation: Operation, headers: Record<string, string> = {}): Promise<HttpAnswer> {
  const { token = adminToken, ...body } = operation;
  return send(port, { headers: { ...jsonType, ...bearer(token), ...headers }, body: JSON.stringify(body) });
}

/** First result of an operation over a transport. */
export type Outcome = {
  status: number | null;
  result: GraphqlResult;
  text: string;
  /** True when the websocket stayed open after the result. */
  open: boolean;
};

export const transports = {
  async POST(port: number, operation: Operation): Promise<Outcome> {
    return outcomeOf(await post(port, operation));
  },
  async GET(port: number, { token = adminToken, query, variables, operationName }: Operation): Promise<Outcome> {
    const search = new URLSearchParams({
      query,
      ...(variables ? { variables: JSON.stringify(variables) } : {}),
      ...(operationName ? { operationName } : {}),
    });
    const headers = { accept: 'application/json', ...bearer(token) };
    return outcomeOf(await send(port, { method: 'GET', path: `/graphql?${search}`, headers }));
  },
  async SSE(port: number, operation: Operation): Promise<Outcome> {
    const answer = await post(port, operation, { accept: 'text/event-stream' });
    if (!String(answer.headers['content-type']).startsWith('text/event-stream')) return outcomeOf(answer);
    const data = /^data: (.+)$/m.exec(answer.text)?.[1] ?? '{}';
    return { status: answer.status, result: JSON.parse(data) as GraphqlResult, text: answer.text, open: true };
  },
  async WS(port: number, { token = adminToken, ...payload }: Operation): Promise<Outcome> {
    const socket = await openSocket(port, { token });
    try {
      socket.send({ id: '1', type: 'subscribe', payload });
      const message = await socket.next();
      const errors = message.payload as GraphqlError[];
      const result = message.type === 'error' ? { errors } : ((message.payload ?? {}) as GraphqlResult);
      socket.send({ type: 'ping' });
      const ends = (message.type === 'error' ? [] : [await socket.next()]).concat(await socket.next());
      return { status: null, result, text: JSON.stringify(message), open: ends.at(-1)?.type === 'pong' };
    } finally {
      await socket.close();
    }
  },
} satisfies Record<string, (port: number, operation: Operation) => Promise<Outcome>>;

export type Transport = keyof typeof transports;
export const transportNames = Object.keys(transports) as Transport[];

function outcomeOf(answer: HttpAnswer): Outcome {
  return { status: answer.status, result: answer.json(), text: answer.text, open: true };
}

export type Message = { id?: string; type: string; payload?: unknown };

export type Socket = {
  send(message: unknown): void;
  /** Sends data unchanged, without the protocol. */
  sendRaw(data: string | Buffer): void;
  /** Resolves with the next message; rejects when the socket closes first. */
  next(): Promise<Message>;
  /** Resolves with code and reason when the socket closes. */
  closed: Promise<{ code: number; reason: string }>;
  /** Every message so far. */
  received: Message[];
  close(): Promise<void>;
};

/** Opens a websocket; resolves after `connection_ack` unless `init` is false. */
export async function openSocket(
  port: number,
  options: { token?: string | null; init?: boolean; params?: unknown; headers?: Record<string, string> } = {},
): Promise<Socket> {
  const socket = await connectSocket(port, { headers: options.headers });
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() }));
  });
  const received: Message[] = [];
  let read = 0;
  let wake = () => {};
  socket.on('message', (data: Buffer) => {
    received.push(JSON.parse(data.toString('utf8')) as Message);
    wake();
  });
  socket.once('close', () => wake());
  socket.on('error', () => {});
  const next = async (): Promise<Message> => {
    for (;;) {
      const message = received[read];
      if (message) {
        read++;
        return message;
      }
      if (socket.readyState === WebSocket.CLOSED) {
        const { code, reason } = await closed;
        throw new Error(`the socket was closed: ${code} ${reason}`);
      }
      await new Promise<void>((resolve) => (wake = resolve));
    }
  };
  const opened: Socket = {
    send: (message) => socket.send(JSON.stringify(message)),
    sendRaw: (data) => socket.send(data),
    next,
    closed,
    received,
    async close() {
      socket.close();
      await closed;
    },
  };
  if (options.init === false) return opened;
  const { token = adminToken, params = bearerParams(token) } = options;
  opened.send({ type: 'connection_init', payload: params });
  const { type } = await next();
  if (type !== 'connection_ack') throw new Error(`expected an acknowledgement, got ${type}`);
  return opened;
}

function bearerParams(token: string | null): Record<string, string> {
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

async function connectSocket(port: number, options: ClientOptions): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/graphql`, 'graphql-transport-ws', options);
  await once(socket, 'open');
  return socket;
}

/**
 * Returns the HTTP status of an upgrade request with these headers: 101 for an opened websocket.
 */
export function upgradeStatus(
  port: number,
  options: { path?: string; headers?: Record<string, string> } = {},
): Promise<{ status: number; headers: IncomingHttpHeaders }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      port,
      host: '127.0.0.1',
      path: options.path ?? '/graphql',
      agent: false,
      headers: {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
        'sec-websocket-protocol': 'graphql-transport-ws',
        ...options.headers,
      },
    });
    request.once('upgrade', (response, socket) => {
      socket.destroy();
      resolve({ status: 101, headers: response.headers });
    });
    request.once('response', (response) => {
      response.resume();
      response.once('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers }));
    });
    request.once('error', reject);
    request.end();
  });
}

/** Returns the data of an operation; throws for errors of the request and for typed errors. */
export async function dataOf(port: number, operation: Operation): Promise<Record<string, Record<string, never>>> {
  const { data, errors } = (await post(port, operation)).json();
  const refused = Object.values(data ?? {}).find((field) => 'code' in Object(field));
  if (errors || refused || !data) throw new Error(JSON.stringify(errors ?? refused));
  return data;
}

const typedError = '... on UserError { code message }';

export async function createProject(port: number, id: string): Promise<void> {
  const query = `mutation ($input: CreateProjectInput!) {
    createProject(input: $input) { ... on ProjectPayload { project { id } } ${typedError} } }`;
  await dataOf(port, { query, variables: { input: { id, command: ['true'] } } });
}

/** Creates a token and returns its text. */
export async function createToken(
  port: number,
  input: { projectId: string | null; scopes: string[]; expiresAt?: string },
): Promise<string> {
  const query = `mutation ($input: CreateTokenInput!) {
    createToken(input: $input) { ... on CreateTokenPayload { secret } ${typedError} } }`;
  const data = await dataOf(port, { query, variables: { input: { name: input.scopes.join('-'), ...input } } });
  return String(data['createToken']?.['secret']);
}

/** Submits a job and returns its id. */
export async function submitJob(port: number, projectId: string, token = adminToken): Promise<string> {
  const query = `mutation ($input: SubmitJobInput!) {
    submitJob(input: $input) { ... on SubmitJobPayload { job { id } } ${typedError} } }`;
  const spec = { projectId, model: 'model', dataset: 'dataset' };
  const data = await dataOf(port, { query, variables: { input: { spec } }, token });
  return String((data['submitJob'] as unknown as { job: { id: string } }).job.id);
}

/** Creates a schedule, due once a year, and returns its id. */
export async function createSchedule(port: number, projectId: string, token = adminToken): Promise<string> {
  const query = `mutation ($input: CreateScheduleInput!) {
    createSchedule(input: $input) { ... on CreateSchedulePayload { schedule { id } } ${typedError} } }`;
  const input = { spec: { projectId, model: 'model', dataset: 'dataset' }, cron: '0 0 1 1 *' };
  const data = await dataOf(port, { query, variables: { input }, token });
  return String((data['createSchedule'] as unknown as { schedule: { id: string } }).schedule.id);
}
