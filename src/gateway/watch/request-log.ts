// Counts each request by its kind (the label `door`, e.g. `rest`) and its outcome, and logs it as
// one line. A line names the operation and its fields, never its text, its variables or a token.
// Failures of the gateway and answers slower than 1 s are logged by default, all others at level
// debug.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import type { Actor } from '../../actor.ts';
import { refusals } from '../../errors.ts';
import { connectionFigures, requestFigures } from '../../metrics-registry.ts';
import type { Operation } from '../graphql/operation.ts';

/** Kinds of requests. The list is closed, because they are values of a metric label. */
export type Door =
  'graphql_post' | 'graphql_get' | 'graphql_socket' | 'event_stream' | 'rest' | 'runner' | 'claim' | 'page' | 'probe';

/** Facts that become known while a request is answered. */
export type RequestEntry = {
  actor: Actor | null;
  operation: Operation | null;
  /** The answer became an event stream. The request ends here; the stream is counted on its own. */
  streams(status: number): void;
};

export type RequestLog = {
  /** Opens the entry of an HTTP request; it is closed when the response closes. */
  open(request: IncomingMessage, response: ServerResponse): RequestEntry;
  /** Runs and logs an operation of a websocket. Of a subscription, only its opening is measured. */
  onSocket<T>(actor: Actor | null, operation: Operation | null, run: () => Promise<T> | T): Promise<T>;
};

const slowMs = 1_000;
/** Requests that last long on purpose, and so are never logged as slow. */
const mayLast = new Set<Door>(['claim', 'event_stream']);
const maxPathLength = 200;

export function createRequestLog(log: Logger): RequestLog {
  function close(
    door: Door,
    outcome: string,
    beganAt: number,
    entry: Omit<RequestEntry, 'streams'>,
    more: object,
  ): void {
    const ms = Math.round(performance.now() - beganAt);
    requestFigures.seconds.observe({ door, outcome }, ms / 1000);
    const failed = outcome === '5xx' || outcome === 'failed';
    const level = failed ? 'warn' : ms > slowMs && !mayLast.has(door) ? 'info' : 'debug';
    if (!log.isLevelEnabled(level)) return;
    const { operation, actor } = entry;
    log[level]({ door, outcome, ms, ...more, ...(operation ? { operation } : {}), token: actor?.tokenId }, 'request');
  }

  return {
    open(request, response) {
      const beganAt = performance.now();
      const { method = '' } = request;
      const path = (request.url ?? '/').split('?', 1)[0] ?? '/';
      const door = doorOf(method, path);
      // The path is logged only where it stands for the operation; that of /graphql tells nothing.
      const more = door === 'rest' || door === 'runner' ? { method, path: path.slice(0, maxPathLength) } : {};
      const counted = door === 'claim' ? connectionFigures.claims : requestFigures.inFlight;
      const labels: Record<string, string> = door === 'claim' ? {} : { door };
      counted.inc(labels);
      let isOver = false;
      const end = (by: Door, status: number | null) => {
        if (isOver) return;
        isOver = true;
        counted.dec(labels);
        close(by, status === null ? 'left' : classOf(status), beganAt, entry, { status, ...more });
      };
      const entry: RequestEntry = {
        actor: null,
        operation: null,
        streams(status) {
          end('event_stream', status);
          connectionFigures.eventStreams.inc();
          response.once('close', () => connectionFigures.eventStreams.dec());
        },
      };
      response.once('close', () => end(door, response.writableFinished ? response.statusCode : null));
      return entry;
    },
    async onSocket(actor, operation, run) {
      const beganAt = performance.now();
      let outcome = 'failed';
      try {
        const result = await run();
        outcome = outcomeOf(result);
        return result;
      } finally {
        close('graphql_socket', outcome, beganAt, { actor, operation }, {});
      }
    },
  };
}

function doorOf(method: string, path: string): Door {
  if (path === '/graphql') return method === 'GET' ? 'graphql_get' : 'graphql_post';
  if (path === '/livez' || path === '/readyz') return 'probe';
  if (path === '/runner/v1/claim') return 'claim';
  if (path.startsWith('/runner/v1/')) return 'runner';
  return path === '/v1' || path.startsWith('/v1/') ? 'rest' : 'page';
}

function classOf(status: number): string {
  return `${Math.floor(status / 100)}xx`;
}

/** Outcome of an operation: `failed` when one of its errors has an HTTP class of 500 or more. */
function outcomeOf(result: unknown): 'ok' | 'refused' | 'failed' {
  const { errors } = (result ?? {}) as { errors?: readonly { extensions?: Record<string, unknown> }[] };
  if (!errors?.length) return 'ok';
  const isServerError = ({ extensions }: { extensions?: Record<string, unknown> }) => {
    const code = String(extensions?.['code']);
    return code in refusals && refusals[code as keyof typeof refusals].httpStatus >= 500;
  };
  return errors.some(isServerError) ? 'failed' : 'refused';
}
