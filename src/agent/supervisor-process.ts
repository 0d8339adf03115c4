// The process of one supervisor, started detached by the runner. Its order comes on stdin and never
// stands in a file, since it holds a token and the job's secrets. The process sends records by its
// own connection to Redis, and listens on a socket where the next runner finds it.
import { createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { z } from 'zod';
import { channels } from '../bus/bus.ts';
import { redisBus } from '../bus/redis.ts';
import { acknowledgement, assignment } from '../protocol/control.ts';
import { createControl } from './control.ts';
import { command, order, socketPath } from './detached.ts';
import { processExecutor } from './process.ts';
import { Supervisor } from './supervisor.ts';

const {
  assignment: assigned,
  url,
  token,
  redisUrl,
  runnerId,
  groupFolder,
  ...settings
} = order.extend({ assignment }).parse(readJson(await text(process.stdin)));
// a socket's path may have 107 bytes, so it is relative to the work folder
process.chdir(settings.workDir);
const control = createControl(url, token);
const bus = redisBus(redisUrl);
// Signals are ignored, since terminal and runner may be gone: only directives of the gateway and
// messages of the runner end the process.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGPIPE'] as const) process.on(signal, () => {});

const supervisor = new Supervisor({
  ...settings,
  assignment: assigned,
  executor: processExecutor(groupFolder),
  gatewayUrl: url,
  append: (stream, batch) => bus.append(stream, batch),
  renew: (attemptId, leaseToken) => control.call(`attempts/${attemptId}/renew`, { leaseToken }, acknowledgement),
  host: { ...process.env, ASTRAML_RUNNER_TOKEN: token, ASTRAML_REDIS_PASSWORD: passwordOf(redisUrl) },
  onTrouble: (error) => console.error(error),
});

const runners = new Set<Socket>();
const server = createServer((socket) => {
  runners.add(socket);
  socket.on('error', () => {}).once('close', () => runners.delete(socket));
  createInterface({ input: socket, crlfDelay: Infinity })
    .on('error', () => {})
    .on('line', (line) => obey(command.safeParse(JSON.parse(line)).data));
});
server.listen(socketPath(assigned.attemptId));

/** Parses the order. The parser's own error would quote it, and the log is on disk. */
function readJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    throw new Error(`The order is no JSON: ${json.length} characters.`);
  }
}

/**
 * Returns the password of Redis, which is redacted like a variable of the host although no
 * environment holds it.
 */
function passwordOf(url: string): string {
  return decodeURIComponent(new URL(url).password);
}

function obey(received: z.output<typeof command> | undefined): void {
  if (received?.type === 'stop') supervisor.stop(received.outcome, received.graceMs);
  if (received?.type === 'abandon') supervisor.abandon(received.graceMs);
}

function receive(message: string): void {
  const parsed = acknowledgement.safeParse(JSON.parse(message));
  // Any other message has no content: the attempt asks the gateway.
  if (parsed.success) supervisor.acknowledge(parsed.data);
  else supervisor.ask();
}

/**
 * Subscribes to acknowledgements. While Redis is away they come over HTTP, and it tries again each
 * second.
 */
async function listen(): Promise<void> {
  for (let ended = false; !ended;) {
    try {
      await bus.subscribe(channels.runner(runnerId), receive);
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 1_000).unref());
      void supervisor.done.then(() => (ended = true));
    }
  }
}

void listen();
await supervisor.done;
for (const socket of runners) socket.end();
server.close();
await bus.close();
process.exit(0);
