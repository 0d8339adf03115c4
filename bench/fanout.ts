// What a delivery costs the gateway: the same lines to no socket and to many, each for itself and shared, side by side.
// `node bench/fanout.ts [sockets] [events] [bytes of an event]`
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { adminToken, createProject, submitJob } from '../test/support/door.ts';
import { startMeasured } from '../test/support/measured.ts';
import { until } from '../test/support/until.ts';

const [sockets = 500, events = 100, bytes = 4_000] = process.argv.slice(2).map(Number);
const query = 'subscription ($id: ID!) { jobLogs(jobId: $id, last: 0) { lines { seq text } endCursor } }';
const subscribe = (id: string) => JSON.stringify({ id: '1', type: 'subscribe', payload: { query, variables: { id } } });

async function follow(port: number, jobId: string, heard: { messages: number; seqs: number }): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/graphql`, 'graphql-transport-ws');
  await once(socket, 'open');
  socket.send(JSON.stringify({ type: 'connection_init', payload: { token: adminToken } }));
  await once(socket, 'message');
  socket.send(subscribe(jobId));
  await once(socket, 'message');
  socket.on('message', (data: Buffer) => {
    heard.messages++;
    heard.seqs += data.toString('latin1').split('"seq":').length - 1;
  });
  return socket;
}

async function measure(env: Record<string, string>, count: number) {
  const gateway = await startMeasured({ ASTRAML_RATE_LIMIT_POINTS: '0', LOG_LEVEL: 'error', ...env });
  try {
    await createProject(gateway.port, 'p-bench');
    const jobId = await submitJob(gateway.port, 'p-bench');
    await gateway.feed({ lines: 50, bytes, batch: 1, everyMs: 5 });
    const heard = { messages: 0, seqs: 0 };
    const open: WebSocket[] = [];
    for (let n = 0; n < count; n++) open.push(await follow(gateway.port, jobId, heard));
    await gateway.feed({ lines: 20, bytes, batch: 1, everyMs: 20 });
    await until(() => heard.seqs >= count * 20, { timeoutMs: 60_000 });
    Object.assign(heard, { messages: 0, seqs: 0 });
    const before = await gateway.cpu();
    await gateway.feed({ lines: events, bytes, batch: 1, everyMs: 20 });
    await until(() => heard.seqs >= count * events, { timeoutMs: 120_000 });
    const after = await gateway.cpu();
    for (const socket of open) socket.terminate();
    return { ms: (after.user + after.system - before.user - before.system) / 1_000, messages: heard.messages };
  } finally {
    await gateway.stop();
  }
}

const base = await measure({}, 0);
console.log(`no socket: ${base.ms.toFixed(0)} ms of CPU for ${events} events of ${bytes} bytes`);
for (const sharing of ['false', 'true']) {
  const { ms, messages } = await measure({ ASTRAML_SHARED_EXECUTION: sharing }, sockets);
  const each = ((ms - base.ms) * 1_000) / messages;
  console.log(
    `${sockets} sockets, shared ${sharing}: ${ms.toFixed(0)} ms, ${messages} messages, ${each.toFixed(1)} µs each`,
  );
}
