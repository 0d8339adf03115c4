// The API from outside: requests that are repeated where a repeat is safe, and streams that resume where they were cut.
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client as SocketClient, createClient as createSocketClient } from 'graphql-ws/client';

export type ClientOptions = {
  /** Address of the gateway, e.g. `http://127.0.0.1:4000`. */
  url: string;
  token: string | null;
  /** How long to go on trying when the gateway is away or busy; 30 s by default. */
  retryForMs?: number;
};

/** An error that the gateway answered, or that kept it from answering (`UNREACHABLE`). */
export class ApiError extends Error {
  readonly code: string;
  readonly httpStatus: number | null;
  readonly retryable: boolean;
  readonly hint: string | null;
  /** How long the gateway asks to wait before a repeat; null when it does not say. */
  readonly retryAfterSeconds: number | null;

  constructor(
    message: string,
    details: {
      code: string;
      httpStatus?: number | null;
      retryable?: boolean;
      hint?: string | null;
      retryAfterSeconds?: number | null;
      cause?: unknown;
    },
  ) {
    super(message, { cause: details.cause });
    this.name = 'ApiError';
    this.code = details.code;
    this.httpStatus = details.httpStatus ?? null;
    this.retryable = details.retryable ?? false;
    this.hint = details.hint ?? null;
    this.retryAfterSeconds = details.retryAfterSeconds ?? null;
  }
}

export type Variables = Record<string, unknown>;

export type RequestOptions = {
  /** Whether sending it twice does no more than sending it once: queries, and mutations with an idempotency key. */
  repeatable?: boolean;
  signal?: AbortSignal;
};

export type FollowOptions = {
  signal?: AbortSignal;
  /** Called when the connection is lost, and when it is there again. */
  onConnection?: (state: 'lost' | 'restored') => void;
};

export type Client = {
  readonly url: string;
  /** Runs an operation; rejects with ApiError for errors of the request as a whole. Typed errors are data. */
  request<Data>(query: string, variables?: Variables, options?: RequestOptions): Promise<Data>;
  /**
   * Follows a subscription with one field, across cut connections: a stream with `$after` goes on behind its last
   * `endCursor`, without a gap or a repeat. Ends when the stream says `done`; rejects with ApiError when it is refused.
   */
  follow<Event>(query: string, variables?: Variables, options?: FollowOptions): AsyncIterableIterator<Event>;
};

export function createClient(options: ClientOptions): Client {
  const endpoint = `${options.url.replace(/\/$/, '')}/graphql`;
  return {
    url: options.url,
    request: (query, variables = {}, { repeatable = false, signal } = {}) =>
      withRetries(options.retryForMs ?? 30_000, repeatable, signal, () =>
        post(endpoint, options.token, query, variables, signal),
      ),
    follow: (query, variables = {}, follow = {}) => followStream(endpoint, options.token, query, variables, follow),
  };
}

const firstPauseMs = 200;
const longestPauseMs = 5_000;

/**
 * Repeats what may be repeated, with full jitter, until it succeeds or the time is over; at once no more when the gateway
 * asks for a longer wait than there is time.
 */
async function withRetries<T>(
  forMs: number,
  repeatable: boolean,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const deadline = Date.now() + forMs;
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    try {
      return await work();
    } catch (error) {
      const again = error instanceof ApiError && error.retryable && repeatable && !signal?.aborted;
      const leftMs = deadline - Date.now();
      if (!again || leftMs <= 0) throw error;
      const askedMs = (error.retryAfterSeconds ?? 0) * 1000;
      if (askedMs > Math.max(leftMs, longestPauseMs)) throw error;
      // The last pause is cut to the time that is left: giving up early would be a matter of luck.
      const waitMs = Math.min(askedMs + Math.random() * pauseMs, leftMs);
      await sleep(waitMs, undefined, { signal });
    }
  }
}

type Answer = { data?: unknown; errors?: { message: string; extensions?: Record<string, unknown> }[] };

async function post<Data>(
  endpoint: string,
  token: string | null,
  query: string,
  variables: Variables,
  signal: AbortSignal | undefined,
): Promise<Data> {
  let response: Response;
  let answer: Answer;
  try {
    response = await fetch(endpoint, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/graphql-response+json, application/json;q=0.9',
        ...(token ? { authorization: `Bearer ${token}` } : {}),
      },
      body: JSON.stringify({ query, variables }),
      signal: signal ?? null,
    });
    answer = (await response.json()) as Answer;
  } catch (cause) {
    if (signal?.aborted) throw cause;
    const message = `The gateway at ${endpoint} cannot be reached.`;
    throw new ApiError(message, {
      code: 'UNREACHABLE',
      retryable: true,
      hint: 'Check the address, and that it runs.',
      cause,
    });
  }
  if (answer.errors?.length) throw toApiError(answer.errors, response.status);
  return answer.data as Data;
}

function toApiError(errors: NonNullable<Answer['errors']>, httpStatus: number | null): ApiError {
  const [first] = errors;
  const { code, retryable, hint, retryAfterSeconds } = first?.extensions ?? {};
  return new ApiError(errors.map((error) => error.message).join('\n'), {
    code: typeof code === 'string' ? code : 'INTERNAL',
    httpStatus,
    retryable: retryable === true,
    hint: typeof hint === 'string' ? hint : null,
    retryAfterSeconds: typeof retryAfterSeconds === 'number' ? retryAfterSeconds : null,
  });
}

type Streamed = { endCursor?: string; done?: boolean };

async function* followStream<Event>(
  endpoint: string,
  token: string | null,
  query: string,
  variables: Variables,
  { signal, onConnection }: FollowOptions,
): AsyncIterableIterator<Event> {
  const socket = openSocket(endpoint, token, (state) => onConnection?.(state));
  let cursor = variables['after'];
  const sent = resumeAfter(() => cursor, variables);
  const ending = signal ?? new AbortController().signal;
  try {
    for (let failures = 0; !ending.aborted; failures++) {
      const stream = socket.iterate<Record<string, unknown>>({ query, variables: sent });
      const stop = () => void stream.return?.();
      ending.addEventListener('abort', stop);
      try {
        for await (const result of stream) {
          if (result.errors) throw toApiError(result.errors as never, null);
          failures = 0;
          const event = Object.values(result.data ?? {})[0] as Event & Streamed;
          cursor = event.endCursor ?? cursor;
          yield event as Awaited<Event>;
          if (event.done) return;
        }
        return; // stopped, or a stream that ends without saying `done`
      } catch (error) {
        const shown = streamError(error, endpoint);
        if (!(shown instanceof ApiError && shown.retryable)) throw shown;
      } finally {
        ending.removeEventListener('abort', stop);
      }
      // The gateway is there, but not what it stands on: the stream begins again behind its cursor.
      await sleep(pauseMs(failures), undefined, { signal: ending }).catch(() => {});
    }
  } finally {
    onConnection = undefined;
    await socket.dispose();
  }
}

/** Makes a socket that connects again for ever, and tells when it is lost and when it is restored. */
function openSocket(
  endpoint: string,
  token: string | null,
  onConnection: NonNullable<FollowOptions['onConnection']>,
): SocketClient {
  let lost = false;
  return createSocketClient({
    url: endpoint.replace(/^http/, 'ws'),
    connectionParams: token ? { Authorization: `Bearer ${token}` } : {},
    retryAttempts: Infinity,
    shouldRetry: () => true,
    retryWait: (retries) => sleep(pauseMs(retries)),
    on: {
      closed() {
        if (!lost) onConnection('lost');
        lost = true;
      },
      connected() {
        if (lost) onConnection('restored');
        lost = false;
      },
    },
  });
}

/**
 * Variables that go on behind a cursor: the stock client sends its payload anew at each connection,
 * so getters give the cursor of that time. `last` names where to begin, and is gone once there is a
 * cursor.
 */
function resumeAfter(cursor: () => unknown, variables: Variables): Variables {
  return Object.defineProperties({ ...variables } as Variables, {
    after: { enumerable: true, get: cursor },
    last: { enumerable: 'last' in variables, get: () => (cursor() === undefined ? variables['last'] : undefined) },
  });
}

function pauseMs(failures: number): number {
  return Math.random() * Math.min(firstPauseMs * 2 ** failures, longestPauseMs);
}

/** graphql-ws rejects with a list of GraphQL errors, or with the event that closed the socket for good. */
function streamError(error: unknown, endpoint: string): unknown {
  if (error instanceof ApiError) return error;
  if (Array.isArray(error)) return toApiError(error as never, null);
  const { code, reason } = (error ?? {}) as { code?: number; reason?: string };
  if (code === 4401)
    return new ApiError('The access token is not valid.', { code: 'UNAUTHENTICATED', httpStatus: 401 });
  if (typeof code !== 'number') return error;
  const message = `The gateway at ${endpoint} closed the stream: ${reason || code}.`;
  return new ApiError(message, { code: 'UNREACHABLE', retryable: true });
}
