// Requests of the fuzz run: over HTTP and websockets as a client sends them, and with damaged
// bodies, frames and paths.
import { bearer, jsonType, openSocket } from './door.ts';
import type { Caller, FuzzWorld } from './fuzz-world.ts';
import { damageJson, damageText } from './mutations.ts';
import type { Operation, Random } from './operations.ts';

/**
 * `status` is an HTTP status or `cut off`; for a websocket `open`, or `closed` with its code;
 * `silence` without an answer in 30 s.
 */
export type Answered = { status: string; text: string };
export type Exchange = { caller: Caller; sent: string; answered: Answered };
export type Question = { world: FuzzWorld; random: Random; caller: Caller; operation: Operation };

const patienceMs = 30_000;

function withPatience(answer: Promise<Answered>): Promise<Answered> {
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<Answered>((resolve) => {
    timer = setTimeout(() => resolve({ status: 'silence', text: '' }), patienceMs);
  });
  return Promise.race([answer, silence]).finally(() => clearTimeout(timer));
}

/** Sends an operation: by POST, some queries by GET, a subscription by Server-Sent Events. */
export async function askOverHttp({ world, random, caller, operation }: Question): Promise<Exchange> {
  const { kind, query, variables } = operation;
  const sent = JSON.stringify({ query, variables });
  if (kind === 'query' && random.chance(0.2) && sent.length < 8_000) {
    const path = `/graphql?${String(new URLSearchParams({ query, variables: JSON.stringify(variables) }))}`;
    return { caller, sent, answered: await request({ world, caller, path }) };
  }
  const accept = kind === 'subscription' ? 'text/event-stream' : 'application/json';
  return { caller, sent, answered: await request({ world, caller, path: '/graphql', body: sent, accept }) };
}

type HttpRequest = {
  world: FuzzWorld;
  caller: Caller;
  path: string;
  /** Body of a POST; absent for a GET. */
  body?: string | Buffer;
  accept?: string;
};

/** Resolves with the answer, or the first event of a stream. */
function request({ world, caller, path, body, accept = '*/*' }: HttpRequest): Promise<Answered> {
  const ending = new AbortController();
  const headers = { ...jsonType, ...bearer(world.tokens[caller]), accept };
  const post = body === undefined ? {} : { method: 'POST', body: Buffer.from(body) };
  const ask = async () => {
    const answer = await fetch(world.installation.urls[0] + path, { ...post, headers, signal: ending.signal });
    let text = '';
    for await (const chunk of answer.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      text += chunk;
      if (answer.headers.get('content-type')?.startsWith('text/event-stream') && /^data: .*\n/m.test(text)) break;
    }
    return { status: String(answer.status), text };
  };
  // A gateway cuts off a large body that it refuses, so the client may see only that.
  const refused = (error: unknown) => ({ status: `cut off: ${error instanceof Error ? error.message : ''}`, text: '' });
  return withPatience(ask().catch(refused)).finally(() => ending.abort());
}

/** Opens a socket, sends one operation, and returns its first message. */
export async function askOverSocket({ world, caller, operation }: Question): Promise<Exchange> {
  const { query, variables } = operation;
  const sent = JSON.stringify({ id: '1', type: 'subscribe', payload: { query, variables } });
  return { caller, sent, answered: await withPatience(overSocket(world, caller, sent, (type) => type !== 'pong')) };
}

/** Sends a frame and a ping, and waits for a message of an ending type or for the close. */
async function overSocket(
  world: FuzzWorld,
  caller: Caller,
  frame: string | Buffer,
  isLast: (type: string) => boolean,
): Promise<Answered> {
  const socket = await openSocket(world.port, { token: world.tokens[caller] }).catch((error: Error) => error);
  if (socket instanceof Error) return { status: `closed ${/\d{4}/.exec(socket.message)?.[0]}`, text: socket.message };
  socket.sendRaw(frame);
  socket.send({ type: 'ping' });
  try {
    while (!isLast((await socket.next()).type));
    return { status: 'open', text: JSON.stringify(socket.received) };
  } catch {
    const { code, reason } = await socket.closed;
    return { status: `closed ${code}`, text: JSON.stringify(socket.received) + reason };
  } finally {
    void socket.close();
  }
}

/** Returns a valid body for one of the paths beside /graphql. */
function wholeBody(random: Random, { ids }: FuzzWorld): { path: string; json: unknown } {
  const id = () => random.pick(ids);
  const gpus = [{ index: 0, model: 'virtual', memoryBytes: 0 }];
  const spec = {
    ...{ project_id: id(), model: 'm', dataset: 'd', name: 'n', notes: 'n', tags: ['t'], command: ['true'] },
    hyperparams: { lr: 1, batch_size: 2, epochs: 1, early_stopping: { patience: 1 }, x: [1, { y: 2 }] },
    augmentation: [{ op: 'crop', params: { size: 1 }, probability: 0.5 }],
    env: { A: 'b', C: { secret: 'S' } },
    resources: { gpus: 0, labels: ['l'] },
    metrics: { window_seconds: 30 },
  };
  return random.pick([
    { path: '/v1/jobs', json: spec },
    { path: '/v1/jobs', json: spec },
    { path: `/v1/jobs/${id()}/cancel`, json: { reason: 'r', grace_period_seconds: 1 } },
    { path: '/runner/v1/register', json: { name: 'r', version: '1', labels: ['l'], gpus, bootId: 'b' } },
    { path: '/runner/v1/claim', json: { runnerId: id(), freeGpus: [0], requestId: 'q', waitSeconds: 0 } },
    { path: '/runner/v1/drain', json: { runnerId: id(), drain: true } },
    { path: `/runner/v1/attempts/${id()}/renew`, json: { leaseToken: 'l' } },
    { path: `/runner/v1/attempts/${id()}/lost`, json: { runnerId: id() } },
  ]);
}

/** Damages a request of a client and sends it over a way that the seed chooses. */
export async function sendDamaged({ world, random, caller, operation }: Question): Promise<Exchange> {
  const { query, variables } = operation;
  const payload = { query, variables, operationName: null, extensions: {} };
  const damaged = (json: unknown): string | Buffer => {
    if (random.chance(0.6)) return JSON.stringify(damageJson(random, json)) ?? '';
    return damageText(random, JSON.stringify(json));
  };
  const exchange = async (sent: string | Buffer, answered: Promise<Answered>, note = '') => ({
    caller,
    sent: note + sent.toString(),
    answered: await answered,
  });
  switch (random.int(5)) {
    case 0: {
      const frame = damaged({ id: '1', type: 'subscribe', payload });
      return exchange(frame, withPatience(overSocket(world, caller, frame, (type) => type === 'pong')), 'frame ');
    }
    case 1: {
      const search = String(
        damageText(random, String(new URLSearchParams({ query, variables: JSON.stringify(variables) }))),
      );
      // Other characters cannot stand in a path; a percent sign may stand before any text.
      const path = `/graphql?${search.replace(/[^!-~]/g, '%')}`.slice(0, 12_000);
      return exchange(path, request({ world, caller, path }), 'GET ');
    }
    case 2: {
      const body = damaged(payload);
      return exchange(body, request({ world, caller, path: '/graphql', body }), 'POST /graphql ');
    }
    default: {
      const { path, json } = wholeBody(random, world);
      const body = damaged(json);
      return exchange(body, request({ world, caller, path, body }), `POST ${path} `);
    }
  }
}
