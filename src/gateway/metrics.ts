// Figures to watch, for Prometheus: `/metrics` on a port of its own, so that it can be kept inside.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { collectDefaultMetrics } from 'prom-client';
import { registry } from '../figures.ts';
import { CannotStart } from './gateway.ts';

/** Starts to answer; rejects when the port is taken. Ending twice is fine. */
export async function serveMetrics(port: number, host: string): Promise<{ stop(): Promise<void> }> {
  // The process's own figures are taken when somebody asks.
  if (!registry.getSingleMetric('process_cpu_seconds_total')) collectDefaultMetrics({ register: registry });
  const server = createServer((request, response) => {
    if (request.method !== 'GET' || request.url?.split('?', 1)[0] !== '/metrics') {
      response.writeHead(404).end('The figures are at GET /metrics.\n');
      return;
    }
    registry.metrics().then(
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
    async stop() {
      await (stopped ??= stop());
    },
  };
}
