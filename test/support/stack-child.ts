// An embedded installation in a process of its own, like `astraml dev`. Prints `control <port>
// gateway <url> token <text>`; the control port returns the delays of the event loop and runs SQL.
import { createServer } from 'node:http';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { text } from 'node:stream/consumers';
import { sql } from 'drizzle-orm';
import { startStack } from './stack.ts';

const env = JSON.parse(process.env['CHILD_ENV'] ?? '{}') as Record<string, string>;
const stack = await startStack({ env });
const delay = monitorEventLoopDelay({ resolution: 5 });
delay.enable();

const answers: Record<string, (body: string) => unknown> = {
  /** Delays of the event loop since the last call, in milliseconds. */
  '/delay': () => {
    const figures = { p50: delay.percentile(50) / 1e6, p99: delay.percentile(99) / 1e6, max: delay.max / 1e6 };
    delay.reset();
    return figures;
  },
  '/stop-runner': () => stack.runner.stop(2_000),
  '/sql': async (statement) => [...(await stack.gateway.store.database.db.execute(sql.raw(statement)))],
};

const control = createServer((request, response) => {
  text(request)
    .then((body) => answers[request.url ?? '']?.(body))
    .then(
      (value) => response.end(JSON.stringify(value ?? null)),
      (error: unknown) => response.writeHead(500).end(String(error)),
    );
});
control.listen(0, '127.0.0.1', () => {
  const address = control.address();
  const port = typeof address === 'object' ? address?.port : 0;
  console.log(`control ${port} gateway ${stack.url} token ${stack.token}`);
});
process.once('SIGTERM', () => void stack.stop().then(() => process.exit(0)));
