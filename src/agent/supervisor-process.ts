// The process of one supervisor: started detached by the runner, with its order on stdin, never in a file, since the
// order holds a token and the job's secrets. It has an uplink of its own, and a socket where the runner finds it again.
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

const { assignment: assigned, ...given } = order.extend({ assignment }).parse(readJson(await text(process.stdin)));
process.chdir(given.workDir); // a socket's path has 107 bytes at most: it is named from here
const control = createControl(given.url, given.token);
const bus = redisBus(given.redisUrl);
// Its terminal and its runner may be gone: only directives of the gateway and of the runner end it.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGPIPE'] as const) process.on(signal, () => {});

const supervisor = new Supervisor({
  assignment: assigned,
  executor: processExecutor(given.groupFolder),
  workDir: given.workDir,
  gatewayUrl: given.url,
  place: given.place,
  virtualGpus: given.virtualGpus,
  append: (stream, batch) => bus.append(stream, batch),
  renew: (attemptId, leaseToken) => control.call(`attempts/${attemptId}/renew`, { leaseToken }, acknowledgement),
  heartbeatMs: given.heartbeatMs,
  leaseMs: given.leaseMs,
  whenCut: given.whenCut,
  graceMs: given.graceMs,
  spoolBytes: given.spoolBytes,
  host: { ...process.env, ASTRAML_RUNNER_TOKEN: given.token, ASTRAML_REDIS_PASSWORD: passwordOf(given.redisUrl) },
  user: given.user,
  refusal: given.refusal,
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

/** The parser's own error would quote what it could not read, and the log is on disk. */
function readJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    throw new Error(`The order is no JSON: ${json.length} characters.`);
  }
}

/** What the runner was given must not be told, though it stands in no environment any more. */
function passwordOf(url: string): string {
  return decodeURIComponent(new URL(url).password);
}

function obey(received: z.output<typeof command> | undefined): void {
  if (received?.type === 'stop') supervisor.stop(received.outcome, received.graceMs);
  if (received?.type === 'abandon') supervisor.abandon(received.graceMs);
}

function hear(message: string): void {
  const parsed = acknowledgement.safeParse(JSON.parse(message));
  // Anything else is a message without content: ask what there is to know.
  if (parsed.success) supervisor.acknowledge(parsed.data);
  else supervisor.ask();
}

/** With Redis away, acknowledgements come over HTTP until it is there. */
async function listen(): Promise<void> {
  for (let ended = false; !ended;) {
    try {
      await bus.subscribe(channels.runner(given.runnerId), hear);
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
