// A gateway in a process of its own, to measure memory after garbage collection, CPU time and
// Prometheus values. `node --expose-gc gateway-child.ts` prints `control <port> gateway <port>`;
// the parent sends requests to the control port.
import { createServer } from 'node:http';
import { registry } from '../../src/metrics-registry.ts';
import { createToken, openDoor } from './door.ts';
import { type Feeder, openFeeder } from './feeder.ts';

const door = await openDoor(
  process.env['CHILD_ENV'] ? (JSON.parse(process.env['CHILD_ENV']) as Record<string, string>) : {},
  { engine: 'embedded' },
);
const token = await createToken(door.port, { projectId: null, scopes: ['RUNNER'] });
let feeder: Feeder | undefined;

/**
 * Sends `lines` lines of `bytes` bytes each, in batches of `batch`, one batch every `everyMs` at
 * most. Each line begins with its number.
 */
async function feed(search: URLSearchParams): Promise<void> {
  feeder ??= await openFeeder(door.url, token, door.gateway.store.bus);
  const [lines = 0, bytes = 0, batch = 1, everyMs = 0] = ['lines', 'bytes', 'batch', 'everyMs'].map((name) =>
    Number(search.get(name) ?? 0),
  );
  for (let sent = 0; sent < lines; sent += batch) {
    const paused = new Promise((resolve) => setTimeout(resolve, everyMs));
    await feeder.lines(
      Array.from({ length: Math.min(batch, lines - sent) }, (_, n) => `${sent + n + 1} `.padEnd(bytes, 'x')),
    );
    await paused;
  }
}

async function collectGarbage(): Promise<NodeJS.MemoryUsage> {
  for (let round = 0; round < 3; round++) {
    globalThis.gc?.();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return process.memoryUsage();
}

const answers: Record<string, (search: URLSearchParams) => unknown> = {
  '/feed': feed,
  '/finish': () => feeder?.finish(),
  '/memory': collectGarbage,
  '/cpu': () => process.cpuUsage(),
  '/resources': () => process.getActiveResourcesInfo(),
  '/figures': () => registry.getMetricsAsJSON(),
};

const control = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://control');
  Promise.resolve(answers[pathname]?.(searchParams)).then(
    (value) => response.end(JSON.stringify(value ?? null)),
    (error: unknown) => response.writeHead(500).end(String(error)),
  );
});
control.listen(0, '127.0.0.1', () => {
  const address = control.address();
  console.log(`control ${typeof address === 'object' ? address?.port : 0} gateway ${door.port}`);
});
process.once('SIGTERM', () => void door.close().then(() => process.exit(0)));
