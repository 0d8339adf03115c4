// Time from the reading of a line by a runner to its arrival at a client: through Redis, a commit
// and Redis again to a websocket. In turns with it, the least that any design needs: a publish that
// comes back, and a commit.
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import { WebSocket } from 'ws';
import { Spool } from '../src/agent/spool.ts';
import { RecordSender } from '../src/agent/record-sender.ts';
import { channels } from '../src/bus/bus.ts';
import { redisBus } from '../src/bus/redis.ts';
import { acknowledgement } from '../src/protocol/control.ts';
import { claimJobs, deploy, readNumbers } from './support/deployment.ts';
import { figure, printMachine, printTable, quantile } from './support/measure.ts';

const options = readNumbers({ samples: 200 });
/**
 * Pause before each line, in milliseconds. The uplink gathers lines for 100 ms, but sends a line at
 * once after an idle time of this length.
 */
const idleMs = 110;

printMachine();
const bench = await deploy();
const bus = redisBus(bench.redis.url);
const sql = postgres(bench.databaseUrl, { max: 1, onnotice: () => {} });
try {
  const { runnerId, assignments } = await claimJobs(bench, 1);
  const { attemptId = '', leaseToken = '', job } = assignments[0] ?? {};
  const spool = await Spool.create(join(bench.folder, 'spool'));
  const uplink = new RecordSender({
    attemptId,
    leaseToken,
    spool,
    append: (stream, batch) => bus.append(stream, batch),
    renew: () => Promise.reject(new Error('not asked')),
    heartbeatMs: 10_000,
    onDirective: () => {},
  });
  let committedAt = () => {};
  await bus.subscribe(channels.runner(runnerId), (message) => {
    const answer = acknowledgement.safeParse(JSON.parse(message)).data;
    if (answer) uplink.acknowledge(answer);
    committedAt();
  });
  const heard = Promise.withResolvers<void>();
  let onMessage = heard.resolve;
  const socket = await follow(job?.id ?? '', () => onMessage());
  await heard.promise;
  let echoed = () => {};
  await bus.subscribe('bench:echo', () => echoed());
  await sql`create table bench_commit (at timestamptz)`;

  const ways: Record<string, number[]> = {
    'Redis, publish and back': [],
    'Postgres, one commit': [],
    'line read → acknowledged': [],
    'line read → client': [],
  };
  const warmUp = 20;
  for (let sample = -warmUp; sample < options.samples; sample++) {
    const note = (name: string, ms: number) => void (sample >= 0 && ways[name]?.push(ms));
    note('Redis, publish and back', await timed((done) => ((echoed = done), bus.publish('bench:echo', 'x'))));
    note('Postgres, one commit', await timed((done) => sql`insert into bench_commit values (now())`.then(done)));
    const acknowledged = Promise.withResolvers<void>();
    const startedAt = performance.now();
    committedAt = () => {
      note('line read → acknowledged', performance.now() - startedAt);
      acknowledged.resolve();
    };
    note(
      'line read → client',
      await timed(async (done) => {
        onMessage = done;
        spool.append({ type: 'line', time: Date.now(), stream: 'STDOUT', text: `sample ${sample}` });
        uplink.notify();
      }),
    );
    await acknowledged.promise;
    committedAt = () => {};
    await sleep(idleMs + Math.random() * 20);
  }
  socket.terminate();
  await uplink.end();
  await spool.remove();
  console.log(`${options.samples} samples, milliseconds\n`);
  printTable(
    ['', 'p50', 'p99'],
    Object.entries(ways).map(([name, times]) => [name, figure(quantile(times, 0.5)), figure(quantile(times, 0.99))]),
  );
} finally {
  await sql.end();
  await bus.close();
  await bench.stop();
}

/** Returns the milliseconds until `work` calls `done`. */
function timed(work: (done: () => void) => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    work(() => resolve(performance.now() - startedAt)).catch(reject);
  });
}

async function follow(jobId: string, hear: () => void): Promise<WebSocket> {
  const socket = new WebSocket(`${bench.url.replace('http', 'ws')}/graphql`, ['graphql-transport-ws']);
  await once(socket, 'open');
  const payload = { authorization: `Bearer ${bench.token}` };
  socket.send(JSON.stringify({ type: 'connection_init', payload }));
  await once(socket, 'message');
  const query = `subscription ($jobId: ID!) { jobLogs(jobId: $jobId, last: 0) { lines { seq text } endCursor } }`;
  socket.on('message', (data: Buffer) => void (data.includes('"next"') && hear()));
  socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query, variables: { jobId } } }));
  return socket;
}
