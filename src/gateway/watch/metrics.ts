// `/metrics` for Prometheus. It listens on a port of its own, so that a firewall can keep it
// inside.
import { once } from 'node:events';
import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { collectDefaultMetrics } from 'prom-client';
import type { Config } from '../../config.ts';
import { countWork } from '../../attempt/queue.ts';
import { registry, workFigures } from '../../metrics-registry.ts';
import type { Store } from '../../live/commit.ts';
import { createBoundedServer } from '../http/connections.ts';
import { CannotStart } from '../gateway.ts';
import { checkHost } from '../http/guard.ts';

export type Metrics = {
  /** From now on, each scrape also counts attempts and queued jobs in the database. */
  countIn(store: Store): void;
  /** Stops listening. Stopping twice is fine. */
  stop(): Promise<void>;
};

/** A scrape waits this long for those counts. Beyond it, it shows the previous ones. */
const countMs = 1_000;
/** Prometheus needs one or two connections. */
const maxConnections = 64;

/** Starts to listen; rejects with CannotStart when the port is taken. */
export async function serveMetrics(
  port: number,
  config: Pick<Config, 'host' | 'hosts' | 'publicUrl'>,
): Promise<Metrics> {
  const { host } = config;
  let count = async () => {};
  // The process's metrics (CPU, memory) are read at each scrape. They register once, since several
  // gateways may run in one process.
  if (!registry.getSingleMetric('process_cpu_seconds_total')) collectDefaultMetrics({ register: registry });
  const server = createBoundedServer({ maxConnections }, (request, response) => {
    const refused = isAddress(request.headers.host ?? '') ? null : checkHost(request.headers, config);
    if (refused) return void response.writeHead(refused.status).end(`${refused.message}\n`);
    if (request.method !== 'GET' || request.url?.split('?', 1)[0] !== '/metrics') {
      response.writeHead(404).end('The figures are at GET /metrics.\n');
      return;
    }
    const counted = Promise.race([count().catch(() => {}), sleep(countMs, undefined, { ref: false })]);
    counted
      .then(() => registry.metrics())
      .then(
        (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
        () => response.writeHead(500).end(),
      );
  });
  server.listen(port, host);
  await once(server, 'listening').catch((error: unknown) => {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code !== 'EADDRINUSE') throw error;
    const hint = 'Choose another one with ASTRAML_METRICS_PORT; 0 switches /metrics off.';
    throw new CannotStart(`Port ${port} on ${host}, for /metrics, is in use. ${hint}`, error);
  });
  let stopped: Promise<unknown> | undefined;
  const stop = async () => {
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  };
  return {
    countIn(store) {
      count = async () => {
        const { attempts, queued } = await countWork(store.database.db);
        workFigures.attempts.set(attempts);
        workFigures.queued.set(queued);
      };
    },
    async stop() {
      await (stopped ??= stop());
    },
  };
}

/**
 * Whether a Host header is an IP address: Prometheus often asks by address. That is safe, since a
 * foreign site can make a browser send its own name, but not an address.
 */
function isAddress(host: string): boolean {
  return isIP(host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')) !== 0;
}
