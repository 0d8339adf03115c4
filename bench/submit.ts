// Jobs submitted per second over HTTP, each with an idempotency key. Compared with postgres.js,
// which writes the same rows (key, job, stream, event in one transaction) at the same concurrency.
import { randomUUID } from 'node:crypto';
import { Agent, request } from 'node:http';
import postgres from 'postgres';
import { deploy, profileArgs, project, readNumbers } from './support/deployment.ts';
import { cpuSeconds, figure, printMachine, printTable, quantile } from './support/measure.ts';

const options = readNumbers({ jobs: 2_000, concurrency: 32, rounds: 3 });

type Run = { rate: number; p50: number; p99: number; gateway: number; postgres: number; here: number };
type Row = Record<string, postgres.ParameterOrJSON<never>>;

const mutation = `mutation ($input: SubmitJobInput!) {
  submitJob(input: $input) { ... on SubmitJobPayload { job { id number state } replayed } ... on UserError { message } }
}`;

printMachine();
const bench = await deploy({ nodeArgs: profileArgs() });
const agent = new Agent({ keepAlive: true, maxSockets: options.concurrency });
const sql = postgres(bench.databaseUrl, { max: options.concurrency, onnotice: () => {} });
try {
  const ours: Run[] = [];
  const theirs: Run[] = [];
  await measure(200, () => submitOne());
  const rows = await readRows();
  await measure(200, (index) => insertOne(rows, -index));
  for (let round = 0; round < options.rounds; round++) {
    theirs.push(await measure(options.jobs, (index) => insertOne(rows, 1e9 + round * options.jobs + index)));
    ours.push(await measure(options.jobs, () => submitOne()));
  }
  print({ 'postgres.js, the same rows': theirs, 'submitJob over HTTP': ours }, theirs);
} finally {
  agent.destroy();
  await sql.end();
  await bench.stop();
}

async function submitOne(): Promise<void> {
  const spec = {
    projectId: project,
    model: 'bert-base',
    dataset: 's3://bucket/dataset',
    resources: { gpus: 1 },
    hyperparams: { batchSize: 32, epochs: 5, lr: 3e-5 },
    tags: ['bench'],
  };
  const answer = await post({ query: mutation, variables: { input: { spec, idempotencyKey: randomUUID() } } });
  if (!answer.includes('"state":"QUEUED"')) throw new Error(`The job was refused: ${answer.slice(0, 500)}`);
}

/** Posts by node:http, because fetch would take more CPU than the gateway. */
function post(body: unknown): Promise<string> {
  const text = JSON.stringify(body);
  const headers = {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    authorization: `Bearer ${bench.token}`,
  };
  return new Promise((resolve, reject) => {
    const sent = request(`${bench.url}/graphql`, { method: 'POST', agent, headers }, (response) => {
      let answer = '';
      response.setEncoding('utf8').on('data', (part: string) => (answer += part));
      response.once('end', () => resolve(answer)).once('error', reject);
    });
    sent.once('error', reject).end(text);
  });
}

/** Returns the rows that one submission wrote, without the columns that Postgres fills in. */
async function readRows() {
  const [job] = await sql<Row[]>`select * from job order by created_at limit 1`;
  const [key] = await sql<Row[]>`select * from idempotency_key where object_id = ${String(job?.id)}`;
  const [event] = await sql<Row[]>`select * from event where job_id = ${String(job?.id)} limit 1`;
  const [stream] = await sql<Row[]>`select * from job_stream where job_id = ${String(job?.id)}`;
  if (!job || !key || !event || !stream) throw new Error('The submission left no rows.');
  const json = await sql<{ table: string; column: string }[]>`
    select table_name as table, column_name as column from information_schema.columns where data_type = 'jsonb'`;
  const ready = (table: string, { changed: _, ...row }: Row): Row =>
    Object.fromEntries(
      Object.entries(row)
        .filter(([, value]) => value !== null)
        .map(([name, value]) => {
          const isJson = json.some((column) => column.table === table && column.column === name);
          return [name, isJson ? sql.json(value as never) : value];
        }),
    ) as Row;
  return {
    job: ready('job', job),
    key: ready('idempotency_key', key),
    event: ready('event', event),
    stream: ready('job_stream', stream),
  };
}

async function insertOne(rows: Awaited<ReturnType<typeof readRows>>, number: number): Promise<void> {
  const id = randomUUID();
  await sql.begin((tx) => [
    tx`insert into idempotency_key ${tx({ ...rows.key, key: id, object_id: id } as never)}`,
    tx`insert into job ${tx({ ...rows.job, id, number } as never)}`,
    tx`insert into job_stream ${tx({ ...rows.stream, job_id: id } as never)}`,
    tx`insert into event ${tx({ ...rows.event, id: randomUUID(), job_id: id } as never)}`,
  ]);
}

async function measure(count: number, work: (index: number) => Promise<void>): Promise<Run> {
  const times: number[] = [];
  let next = 0;
  const before = usage();
  const startedAt = performance.now();
  const lane = async () => {
    while (next < count) {
      const at = performance.now();
      await work(next++);
      times.push(performance.now() - at);
    }
  };
  await Promise.all(Array.from({ length: options.concurrency }, lane));
  const seconds = (performance.now() - startedAt) / 1000;
  const after = usage();
  const each = (name: keyof typeof before) => ((after[name] - before[name]) / count) * 1000;
  return {
    rate: count / seconds,
    p50: quantile(times, 0.5),
    p99: quantile(times, 0.99),
    gateway: each('gateway'),
    postgres: each('postgres'),
    here: each('here'),
  };
}

function usage() {
  const own = process.cpuUsage();
  return {
    gateway: cpuSeconds(bench.gateway.pid) ?? NaN,
    postgres: cpuSeconds(bench.postgres.pid()) ?? NaN,
    here: (own.user + own.system) / 1e6,
  };
}

function print(ways: Record<string, Run[]>, beside: readonly Run[]): void {
  const middle = (values: readonly number[]) => figure(quantile(values, 0.5));
  console.log(`${options.jobs} jobs, concurrency ${options.concurrency}, medians of ${options.rounds} rounds\n`);
  printTable(
    ['', 'per second', 'ratio', 'p50 ms', 'p99 ms', 'CPU ms each: gateway', 'Postgres', 'client'],
    Object.entries(ways).map(([name, runs]) => [
      name,
      middle(runs.map((run) => run.rate)),
      middle(runs.map((run, round) => run.rate / (beside[round]?.rate ?? NaN))),
      ...(['p50', 'p99', 'gateway', 'postgres', 'here'] as const).map((part) => middle(runs.map((run) => run[part]))),
    ]),
  );
}
