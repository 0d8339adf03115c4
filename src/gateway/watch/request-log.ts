// What is kept of each request: figures by door and outcome, and a line of the log. A line names the operation and its
// fields, never its text, its variables or a token. Failures of ours and slow answers are told by default, all at debug.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import type { Actor } from '../../actor.ts';
import { refusals } from '../../errors.ts';
import { connectionFigures, requestFigures } from '../../metrics-registry.ts';
import type { Operation } from '../graphql/operation.ts';

/** The doors by which requests come: the values of a label, so a closed list. */
export type Door =
  'graphql_post' | 'graphql_get' | 'graphql_socket' | 'event_stream' | 'rest' | 'runner' | 'claim' | 'page' | 'probe';

/** What becomes known of a request while it is answered. */
export type RequestEntry = {
  actor: Actor | null;
  operation: Operation | null;
  /** The answer has become an event stream, which lasts: the request is over. */
  streams(status: number): void;
};

export type RequestLog = {
  /** Opens the entry of an HTTP request; it is closed with the response. */
  open(request: IncomingMessage, response: ServerResponse): RequestEntry;
  /** Runs an operation of a websocket; of a subscription, what opens it. */
  onSocket<T>(actor: Actor | null, operation: Operation | null, run: () => Promise<T> | T): Promise<T>;
};

const slowMs = 1_000;
/** They wait on purpose. */
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
      // Only these paths are all of a request that has no operation; that of /graphql tells nothing.
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

/** Of the result of an operation: `failed` when one of its errors is ours. */
function outcomeOf(result: unknown): 'ok' | 'refused' | 'failed' {
  const { errors } = (result ?? {}) as { errors?: readonly { extensions?: Record<string, unknown> }[] };
  if (!errors?.length) return 'ok';
  const isOurs = ({ extensions }: { extensions?: Record<string, unknown> }) => {
    const code = String(extensions?.['code']);
    return code in refusals && refusals[code as keyof typeof refusals].httpStatus >= 500;
  };
  return errors.some(isOurs) ? 'failed' : 'refused';
}
