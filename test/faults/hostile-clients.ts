// Clients that ask for more than anybody should get: each with a token that may only read another project, or with none.
// What they ask about is heavy and lies ready. No answer may be a gateway's own mistake, and nobody else may notice them.
import { setTimeout as sleep } from 'node:timers/promises';
import { getIntrospectionQuery } from 'graphql';
import postgres from 'postgres';
import type { Client } from '../../src/client/client.ts';
import { packBytes } from '../../src/database/columns.ts';
import { aggregateOf } from '../../src/metric/window.ts';
import { createProject } from '../support/stack.ts';
import type { Violation } from './evidence.ts';
import type { Chance } from './random.ts';
import { monotonicMs, type Weather } from './weather.ts';
import type { World } from './world.ts';

const readerProjectId = 'p-reader';
const lines = { chunks: 64, inChunk: 16, bytes: 16_000 };
const metricCount = 6_000;
const specEntries = { count: 900, bytes: 260 };
const patienceMs = 60_000;
const standardIntrospection = getIntrospectionQuery();

export class HostileClients {
  readonly violations: Violation[] = [];
  /** Answers by what they were: an HTTP status, or the code of the first error. */
  readonly answers: Record<string, number> = {};
  readonly #world: World;
  readonly #weather: Weather;
  readonly #token: string;
  readonly #jobId: string;

  private constructor(world: World, weather: Weather, token: string, jobId: string) {
    this.#world = world;
    this.#weather = weather;
    this.#token = token;
    this.#jobId = jobId;
  }

  /** Makes the project, its token, and a job with 16 MB of log, 6,000 metrics and a spec of 0.24 MB. */
  static async prepare(world: World, weather: Weather, client: Client): Promise<HostileClients> {
    await createProject(client, readerProjectId, ['true']);
    type Created = { createToken: { secret: string } };
    const { createToken } = await client.request<Created>(
      'mutation ($input: CreateTokenInput!) { createToken(input: $input) { ... on CreateTokenPayload { secret } } }',
      { input: { name: 'reader', projectId: readerProjectId, scopes: ['READ'] } },
    );
    const jobId = await submitHeavyJob(client);
    await fillJob(world.databaseUrl, jobId);
    return new HostileClients(world, weather, createToken.secret, jobId);
  }

  /** Attacks both gateways at once in one of the ways; resolves when all answers have come. */
  async attack(chance: Chance): Promise<boolean> {
    const way = chance.of([
      () => this.#repeat(3, this.#ofJob(aliases(12, 'logs(first: 1000) { nodes { text } }'))),
      () => this.#repeat(2, this.#ofJob(aliases(19, 'logs(first: 1000) { nodes { text } }'))),
      () => this.#repeat(1, this.#ofJob(aliases(99, 'logs(first: 5, filter: { search: "nohit" }) { nodes { text } }'))),
      () => this.#repeat(1, this.#ofJob(aliases(100, 'spec'))),
      () => this.#repeat(1, this.#ofJob('metrics { windows(first: 900) { nodes { mean } } }')),
      () => this.#repeat(2, preview('eyJ-'.repeat(60_000))),
      () => this.#introspect(),
    ]);
    await way();
    return true;
  }

  async #repeat(times: number, body: object): Promise<void> {
    const ports = this.#world.gateways.map(({ links }) => links.front.port);
    const each = Array.from({ length: times }, () => ports).flat();
    await Promise.all(each.map((port) => this.#ask(port, body, this.#token)));
  }

  /** Without a token, about 26 times a second on four connections, for 2 s. */
  async #introspect(): Promise<void> {
    const asked: Promise<void>[] = [];
    for (let n = 0; n < 52; n++) {
      for (const { links } of this.#world.gateways) {
        asked.push(this.#ask(links.front.port, { query: standardIntrospection }, null));
      }
      await sleep(1_000 / 26);
    }
    await Promise.all(asked);
  }

  async #ask(port: number, body: object, token: string | null): Promise<void> {
    const from = monotonicMs();
    const authorization: Record<string, string> = token === null ? {} : { authorization: `Bearer ${token}` };
    const answer = await fetch(`http://127.0.0.1:${port}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...authorization },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(patienceMs),
    })
      .then(async (response) => ({ status: response.status, text: await response.text() }))
      .catch(() => null);
    const outcome = answer ? outcomeOf(answer.status, answer.text) : 'no answer';
    this.answers[outcome] = (this.answers[outcome] ?? 0) + 1;
    // While a database is away a gateway may fail as it likes.
    const to = monotonicMs();
    if (this.#weather.calmMs(from, to) < to - from) return;
    if (outcome === '500' || outcome === 'INTERNAL')
      this.violations.push({ invariant: 'no client gets a 500', what: JSON.stringify(body).slice(0, 200) });
  }

  #ofJob(selection: string): object {
    return { query: `query ($id: ID!) { job(id: $id) { ${selection} } }`, variables: { id: this.#jobId } };
  }
}

function outcomeOf(status: number, text: string): string {
  if (status >= 500) return String(status);
  const code = /"code":"([A-Z_]+)"/.exec(text.slice(0, 100_000))?.[1];
  return code ?? String(status);
}

function aliases(count: number, selection: string): string {
  return Array.from({ length: count }, (_, index) => `a${index}: ${selection}`).join(' ');
}

function preview(notes: string): object {
  const spec = { projectId: readerProjectId, model: 'm', dataset: 'd', notes };
  return { query: 'query ($spec: JobSpecInput!) { previewJob(spec: $spec) { specHash } }', variables: { spec } };
}

/** A job that never runs: it is cancelled while it waits. */
async function submitHeavyJob(client: Client): Promise<string> {
  const extra = Object.fromEntries(
    Array.from({ length: specEntries.count }, (_, index) => [`entry_${index}`, 'v'.repeat(specEntries.bytes)]),
  );
  const resources = { gpus: 1, labels: ['nowhere'] };
  const spec = { projectId: readerProjectId, model: 'm', dataset: 'd', hyperparams: { extra }, resources };
  type Submitted = { submitJob: { job?: { id: string }; message?: string } };
  const { submitJob } = await client.request<Submitted>(
    `mutation ($input: SubmitJobInput!) {
      submitJob(input: $input) { ... on SubmitJobPayload { job { id } } ... on UserError { message } } }`,
    { input: { spec } },
  );
  const id = submitJob.job?.id;
  if (!id) throw new Error(`The heavy job was refused: ${submitJob.message}`);
  await client.request('mutation ($input: CancelJobInput!) { cancelJob(input: $input) { __typename } }', {
    input: { id },
  });
  return id;
}

/** Written straight into the tables: a command would take minutes to print it. */
async function fillJob(databaseUrl: string, jobId: string): Promise<void> {
  const sql = postgres(databaseUrl, { max: 1, fetch_types: false, onnotice: () => {} });
  const text = 'x'.repeat(lines.bytes);
  const entries = Array.from({ length: lines.inChunk }, () => [Date.now(), 0, text]);
  const { packed, size } = packBytes(JSON.stringify(entries));
  const point = { step: 1, epoch: null, time: Date.now(), value: 1, attempt: 1 };
  try {
    await sql`
      insert into log_chunk (job_id, first, last, attempt, first_time, last_time, body, size)
      select ${jobId}, 1 + n * ${lines.inChunk}, (n + 1) * ${lines.inChunk}, 1, now(), now(), ${packed}, ${size}
      from generate_series(0, ${lines.chunks - 1}) n`;
    await sql`update job_stream set line = ${lines.chunks * lines.inChunk} where job_id = ${jobId}`;
    await sql`
      insert into metric (job_id, name, count, last, min, max)
      select ${jobId}, 'heavy/' || n, 1, p, p, p
      from generate_series(1, ${metricCount}) n, (select ${sql.json(point)}::jsonb as p) points`;
    await sql`
      insert into metric_window (job_id, name, attempt, seconds, start, state, revision, change, closed)
      select ${jobId}, 'heavy/' || n, 1, 30, 0, ${sql.json(aggregateOf(1, 1))}::jsonb, 1, n, true
      from generate_series(1, ${metricCount}) n`;
  } finally {
    await sql.end({ timeout: 5 });
  }
}
